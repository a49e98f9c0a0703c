# SPDX-License-Identifier: Apache-2.0
"""Every bad input: exit 1, one line that says what to do, no file left behind."""

import os

import pytest
import torch
from conftest import save_model
from test_training import command, interrupt_at
from transformers import FalconConfig, FalconForCausalLM

from spectx_train import tokenize_cli
from spectx_train.cli import main
from spectx_train.trainer import Trainer


@pytest.fixture
def refused(capsys, tmp_path):
    def run(arguments, *wanted):
        capsys.readouterr()
        assert main(arguments) == 1
        last = capsys.readouterr().err.rstrip("\n").splitlines()[-1]
        assert last.startswith("spectx-train-head: error: ")
        for text in wanted:
            assert text in last
        assert not list(tmp_path.glob("head*.safetensors"))

    return run


def test_options(model_folder, tokens_file, tmp_path, refused):
    def with_options(*options):
        return command(model_folder, tokens_file, tmp_path / "head.safetensors", *options)

    refused(with_options("--objective", "maximum"), "maximum is none of mean, max")
    refused(with_options("--objective", "max:x"), "x is not a number")
    refused(with_options("--objective", "max:-1"), "must be positive")
    refused(with_options("--feature-layers", "2,1"), "--feature-layers 2,1 must ascend")
    refused(with_options("--feature-layers", "1,3"), "end at 2 or before")
    refused(with_options("--query-heads", "7"), "7 query heads are no multiple of 3")
    refused(with_options("--head-dim", "7"), "odd")
    refused(with_options("--lengths", "1024"), "--lengths 1024", "512")
    refused(with_options("--lengths", "64,x"), "64,x is no list")
    refused(with_options("--batch-tokens", "32"), "less than one sequence of 64")
    refused(with_options("--variant", "a", "--variant", "a"), "names that differ")
    refused(with_options("--ema", "1"), "--ema 1.0")
    refused(with_options("--lengths"), "expected one argument")
    refused(with_options("--out", str(tmp_path / "none" / "head.safetensors")), "is no folder")
    (tmp_path / "folder.safetensors").mkdir()
    refused(with_options("--out", str(tmp_path / "folder.safetensors")), "not a regular file")


def test_targets(model_folder, tokens_file, tmp_path, refused):
    out = tmp_path / "head.safetensors"
    refused(command(str(tmp_path / "none"), tokens_file, out), "no such model")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(command(str(empty), tokens_file, out), "cannot be loaded by transformers")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF nonsense")
    refused(command(str(tmp_path / "bad.gguf"), tokens_file, out), "bad.gguf")
    sizes = {"vocab_size": 256, "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 6}
    FalconForCausalLM(FalconConfig(**sizes)).save_pretrained(tmp_path / "falcon")
    refused(command(str(tmp_path / "falcon"), tokens_file, out), "attention interface")


def test_texts(model_folder, tokens_file, tmp_path, refused):
    out = tmp_path / "head.safetensors"
    refused(command(model_folder, str(tmp_path / "none.txt"), out), "none.txt: no such text")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("caf\u00e9".encode("latin-1"))
    refused(command(model_folder, str(latin), out), "latin.txt is not UTF-8: byte 3")
    short = tmp_path / "short.txt"
    short.write_text("short")
    refused(command(model_folder, str(short), out), "5 tokens, at least 129 are needed")
    refused(
        command(model_folder, tokens_file, out, "--held-out", str(short)),
        "no held-out text has 65 tokens (the longest: 5)",
    )
    (tmp_path / "bad.npz").write_bytes(b"nonsense")
    refused(command(model_folder, str(tmp_path / "bad.npz"), out), "not a file of spectx-tokenize")


def test_text_files_are_tokenised(model_folder, tmp_path, capsys):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("one two three " * 40, encoding="utf-8")
    (tmp_path / "text" / "b.txt").write_text("vier f\u00fcnf sechs " * 40, encoding="utf-8")
    kept = str(tmp_path / "kept.npz")
    given = ["--target", model_folder, "--text", str(tmp_path / "text"), "--out", kept]
    assert tokenize_cli.main(given) == 0
    assert "2 documents, 1240 tokens" in capsys.readouterr().out
    for text in (str(tmp_path / "text"), kept):
        out = tmp_path / "trained.safetensors"
        assert main(command(model_folder, text, out, "--steps", "1")) == 0


def test_a_head_for_another_model(model_folder, tokens_file, tmp_path, refused, monkeypatch):
    made = tmp_path / "made.safetensors"
    assert main(command(model_folder, tokens_file, made, "--steps", "1")) == 0
    narrow = save_model(tmp_path / "narrow", hidden_size=42)
    again = save_model(tmp_path / "again", seed=1)
    out = tmp_path / "head.safetensors"
    refused(
        command(narrow, tokens_file, out, "--init", str(made)),
        "for another model, or of another shape: fc.weight is [48, 96], needed [42, 84]",
    )
    refused(command(again, tokens_file, out, "--init", str(made)), "another model", "SHA-256")
    refused(
        command(model_folder, tokens_file, out, "--init", tokens_file), "cannot be read"
    )
    ours = os.path.join(os.path.dirname(__file__), "../../data/heads/smollm2-135m-instruct.safetensors")
    refused(command(model_folder, tokens_file, out, "--also-measure", ours), "is no head for", "576")
    with monkeypatch.context() as patched:
        interrupt_at(patched, 2)
        refused(command(model_folder, tokens_file, out, "--steps", "9"), "interrupted at step 3")
    refused(command(again, tokens_file, out, "--steps", "9", "--resume"), "another model")
    refused(
        command(model_folder, tokens_file, out, "--steps", "9", "--seed", "1", "--resume"),
        "other settings (seed)",
    )
    (tmp_path / "head.safetensors.ckpt").write_bytes(b"nonsense")
    refused(command(model_folder, tokens_file, out, "--resume"), "not a checkpoint")


def test_out_of_memory_says_what_to_lower(
    model_folder, tokens_file, tmp_path, refused, monkeypatch
):
    def batch(self):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB\nline 2")

    monkeypatch.setattr(Trainer, "batch", batch)
    arguments = command(model_folder, tokens_file, tmp_path / "head.safetensors", "--steps", "2")
    refused(arguments, "lower --batch-tokens (now 128)", "--queries-per-sequence (now 8)", "(now 64)")
