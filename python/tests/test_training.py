# SPDX-License-Identifier: Apache-2.0
import json
import os
import signal

import pytest
import torch

from spectx_train.cli import main
from spectx_train.head import load_head
from spectx_train.trainer import Trainer


def command(model_folder, tokens_file, out, *more):
    sizes = ["--lengths", "64", "--batch-tokens", "128", "--queries-per-sequence", "8"]
    report = ["--budgets", "24", "--window", "8", "--sinks", "2", "--device", "cpu"]
    return ["--target", model_folder, "--text", tokens_file, "--out", str(out), *sizes, *report, *more]


@pytest.mark.parametrize(
    "options",
    [
        ["--objective", "max"],
        ["--objective", "mean:1,value:0.5", "--reduce", "max", "--forced", "keep"],
        ["--objective", "max:1,recall:0.5,draft:0.3", "--recall-budget", "24"],
        ["--objective", "square", "--temperature", "1.5", "--weight", "even", "--ema", "0.9"],
    ],
)
def test_loss_falls(model_folder, tokens_file, tmp_path, options):
    out = tmp_path / "head.safetensors"
    arguments = command(model_folder, tokens_file, out, "--steps", "150", "--lr", "3e-3", *options)
    assert main(arguments) == 0
    history = json.loads((tmp_path / "head.json").read_text())["loss"]["history"]
    losses = [row[1] for row in history]
    assert history[-1][0] == 150
    assert sum(losses[-3:]) / 3 < losses[0] - 0.05 * abs(losses[0])
    shape, weights, metadata = load_head(str(out))
    assert shape.query_heads == 6 and shape.kv_heads == 3 and shape.feature_layers == (0, 1)
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert metadata["group_reduce"] == ("max" if "--reduce" in options else "mean")
    rows = json.loads((tmp_path / "head.json").read_text())["reports"][0]["rows"]
    measured = {row["group"] for row in rows if row["selection"] == "head" and "loss_increase" in row}
    assert measured == {metadata["group_reduce"]}  # as it will be read
    assert metadata["steps"] == "150" and len(metadata["target_sha256"]) == 64
    assert not (tmp_path / "head.safetensors.ckpt").exists()
    assert out.stat().st_mode == (tmp_path / "head.json").stat().st_mode


def test_report_ranks_as_it_must(model_folder, tokens_file, tmp_path):
    """No selection shared by the layers keeps more than the best one; nobody keeps all."""
    arguments = command(model_folder, tokens_file, tmp_path / "head.safetensors", "--steps", "100")
    assert main(arguments) == 0
    report = json.loads((tmp_path / "head.json").read_text())["reports"][0]
    recall = {row["selection"]: row["recall"] for row in report["rows"]}
    assert recall["best shared set"] >= max(recall.values()) and recall["head"] < 1
    assert all(row["recall_worst_layer"] <= row["recall"] for row in report["rows"])


def interrupt_at(monkeypatch, step):
    """The trainer gets a SIGINT during `step`."""
    own = Trainer.batch

    def batch(self):
        if self.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return own(self)

    monkeypatch.setattr(Trainer, "batch", batch)


def test_an_interrupted_run_resumes_to_the_same_weights(
    model_folder, tokens_file, tmp_path, monkeypatch, capsys
):
    options = ["--steps", "24", "--ema", "0.8", "--objective", "max:1,draft:0.3"]
    assert main(command(model_folder, tokens_file, tmp_path / "a.safetensors", *options)) == 0
    with monkeypatch.context() as patched:
        interrupt_at(patched, 12)
        assert main(command(model_folder, tokens_file, tmp_path / "b.safetensors", *options)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "interrupted at step 13" in error and "--resume" in error
    assert not (tmp_path / "b.safetensors").exists()
    resumed = command(model_folder, tokens_file, tmp_path / "b.safetensors", *options, "--resume")
    assert main(resumed) == 0
    a, b = (load_head(str(tmp_path / f"{name}.safetensors"))[1] for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_an_interrupted_report_costs_no_training(
    model_folder, tokens_file, tmp_path, monkeypatch, capsys
):
    def interrupt(*_):
        raise KeyboardInterrupt

    arguments = command(model_folder, tokens_file, tmp_path / "head.safetensors", "--steps", "12")
    with monkeypatch.context() as patched:
        patched.setattr("spectx_train.evaluate.Report.measure", interrupt)
        assert main(arguments) == 130
    assert "--resume" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(Trainer, "batch", interrupt)
    assert main([*arguments, "--resume"]) == 0  # without another step
    assert load_head(str(tmp_path / "head.safetensors"))[2]["steps"] == "12"


def test_variants_share_the_passes_but_nothing_else(model_folder, tokens_file, tmp_path):
    """A head trained beside another is the one trained alone."""
    alone = command(model_folder, tokens_file, tmp_path / "alone.safetensors", "--steps", "12")
    assert main([*alone, "--reduce", "max"]) == 0
    both = command(model_folder, tokens_file, tmp_path / "both.safetensors", "--steps", "12")
    assert main([*both, "--variant", "x --objective draft,mean", "--variant", "y --reduce max"]) == 0
    one = load_head(str(tmp_path / "alone.safetensors"))[1]
    other = load_head(str(tmp_path / "both.y.safetensors"))[1]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_compiled_layers_train_the_same_head(model_folder, tokens_file, tmp_path):
    plain = command(model_folder, tokens_file, tmp_path / "plain.safetensors", "--steps", "5")
    fused = command(model_folder, tokens_file, tmp_path / "fused.safetensors", "--steps", "5")
    assert main(plain) == 0 and main([*fused, "--compile"]) == 0
    a, b = (load_head(str(tmp_path / f"{name}.safetensors"))[1] for name in ("plain", "fused"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=5e-3)


def test_a_head_without_features_keeps_its_fc_at_zero(model_folder, tokens_file, tmp_path):
    out = tmp_path / "head.safetensors"
    options = ["--steps", "12", "--features", "off"]
    assert main(command(model_folder, tokens_file, out, *options)) == 0
    weights = load_head(str(out))[1]
    assert not weights["fc.weight"].any() and weights["midlayer.self_attn.q_proj.weight"].any()


def test_random_weights_need_no_text(model_folder, tmp_path):
    config = os.path.join(model_folder, "config.json")
    arguments = command(config, "", tmp_path / "head.safetensors", "--steps", "2", "--random-weights")
    arguments[arguments.index("--text") : arguments.index("--out")] = []
    assert main(arguments) == 0
    assert load_head(str(tmp_path / "head.safetensors"))[2]["target_sha256"] == "random weights"


def test_help_has_the_defaults(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0 and "tokens of an update; default: 16384" in words
    assert "--lengths N,... tokens of a sequence, mixed step by step; default: 8192" in words
