# SPDX-License-Identifier: Apache-2.0
"""The checkpoints of tests/data/heads, as the folders and .bin files that they come as."""

import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from spectx_train.convert_cli import main

HEADS = os.path.join(os.path.dirname(__file__), "../../tests/data/heads")
SIDES = ("v_proj", "lm_head", "d2t", "t2d", "post_attention", "layers.1.")


def folder_of(tmp_path, kind, form):
    folder = tmp_path / kind
    shutil.copytree(os.path.join(HEADS, kind), folder)
    tensors = load_file(folder / "model.safetensors")
    if form != "safetensors":
        os.remove(folder / "model.safetensors")
    if form == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    if form == "old bin":
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    if form == "sharded bin":
        halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
        names = {}
        for i, half in enumerate(halves):
            torch.save(half, folder / f"part{i}.bin")
            names.update({name: f"part{i}.bin" for name in half})
        with open(folder / "pytorch_model.bin.index.json", "w") as file:
            json.dump({"weight_map": names}, file)
    return folder, tensors


@pytest.mark.parametrize("form", ["safetensors", "bin", "old bin", "sharded bin"])
@pytest.mark.parametrize(
    "kind", ["eagle", "eagle_narrow", "specforge", "speculators", "angelslim", "deepspec"]
)
def test_every_form_keeps_the_head_and_its_config(tmp_path, kind, form):
    folder, tensors = folder_of(tmp_path, kind, form)
    out = str(tmp_path / "head.safetensors")
    assert main([str(folder), out]) == 0
    converted = load_file(out)
    for name, tensor in converted.items():
        assert torch.equal(tensor, tensors[name]) and tensor.dtype == tensors[name].dtype
    left = [name for name in tensors if name not in converted]
    own = ["embed_tokens.weight"] if kind != "eagle_narrow" else []
    assert all(name in own or name == "norm.weight" or any(s in name for s in SIDES)
               for name in left)
    with safe_open(out, "pt") as file, open(folder / "config.json") as config:
        assert json.loads(file.metadata()["config"]) == json.load(config)


def test_what_was_trained_otherwise_goes_along(tmp_path):
    folder, _ = folder_of(tmp_path, "eagle", "bin")
    out = str(tmp_path / "head.safetensors")
    source = str(folder / "pytorch_model.bin")
    assert main([source, out, "--rope-theta", "5e5", "--feature-layers", "1,5,8"]) == 0
    with safe_open(out, "pt") as file:
        assert file.metadata()["rope_theta"] == "500000.0"
        assert file.metadata()["feature_layers"] == "[1, 5, 8]"


def test_bad_arguments(tmp_path, capsys):
    out = str(tmp_path / "head.safetensors")
    assert main([str(tmp_path / "none"), out]) == 1
    assert "none: no such file or folder" in capsys.readouterr().err
    for option in (("--rope-theta", "-5"), ("--feature-layers", "1,-2")):
        with pytest.raises(SystemExit):
            main([str(tmp_path), out, *option])
        assert option[0] in capsys.readouterr().err


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: torch.save({"fc.weight": Harmful()}, f / "pytorch_model.bin"), "it calls "),
        (lambda f: torch.save([torch.ones(2)], f / "pytorch_model.bin"), "a dictionary of tensors"),
        (lambda f: torch.save({"a": torch.ones(2)}, f / "pytorch_model.bin"), "fc.weight, "),
        (lambda f: (f / "pytorch_model.bin").write_bytes(b"PK\3\4 cut"), "cannot be read"),
        (lambda f: (f / "pytorch_model.bin").write_bytes(b""), "pytorch_model.bin"),
        (lambda f: os.remove(f / "pytorch_model.bin"), "neither model.safetensors nor"),
        (lambda f: os.remove(f / "config.json"), "config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[" * 100000), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[1]"), "not a JSON object"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "../pytorch_model.bin"}}'
            ),
            "files beside it",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(tmp_path, monkeypatch, capsys, change, message):
    folder, _ = folder_of(tmp_path, "eagle", "bin")
    monkeypatch.chdir(tmp_path)
    change(folder)
    (tmp_path / "out").mkdir()
    assert main([str(folder), str(tmp_path / "out" / "head.safetensors")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert os.listdir(tmp_path / "out") == []
    assert not (tmp_path / "harmed").exists()


def test_a_head_is_not_written_over_its_source(tmp_path, capsys):
    folder, _ = folder_of(tmp_path, "eagle", "safetensors")
    os.symlink(folder / "model.safetensors", tmp_path / "link.safetensors")
    for out in (folder / "model.safetensors", tmp_path / "link.safetensors"):
        assert main([str(folder), str(out)]) == 1
        assert "written over" in capsys.readouterr().err
