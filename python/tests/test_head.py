# SPDX-License-Identifier: Apache-2.0
import math
import os

import pytest
import torch

from spectx_train import UserError
from spectx_train.evaluate import select
from spectx_train.head import Head, HeadShape, Yarn, load_head, reduce_group, rope_frequencies
from spectx_train.head import replace_file, save_head
from spectx_train.objective import Objective, parse_terms

SHAPE = HeadShape(16, (0, 2), 4, 2, 8, 10000.0, 1e-5)
NAMES = {
    "fc.weight": [16, 32],
    "midlayer.input_layernorm.weight": [16],
    "midlayer.hidden_norm.weight": [16],
    "midlayer.self_attn.q_proj.weight": [32, 32],
    "midlayer.self_attn.k_proj.weight": [16, 32],
}


def make_head():
    head = Head(SHAPE)
    head.initialise(torch.Generator().manual_seed(0))
    return head


def test_file_has_the_names_of_eagle3_and_loads(tmp_path):
    head, path = make_head(), str(tmp_path / "head.safetensors")
    save_head(path, SHAPE, head.state_dict(), {"target": "tiny", "lengths": [64]}, Yarn(4, 64))
    shape, weights, metadata = load_head(path)
    assert {name: list(weight.shape) for name, weight in weights.items()} == NAMES
    assert shape == SHAPE
    assert metadata["target"] == "tiny" and metadata["lengths"] == "[64]"
    assert '"factor": 4' in metadata["rope_scaling"]
    for name, weight in head.state_dict().items():
        assert torch.equal(weights[name], weight.half().float())
    assert [file.name for file in tmp_path.iterdir()] == ["head.safetensors"]


def test_log_weights_are_those_of_the_definition():
    """Row by row in float64: row p is (token p, feature p - 1) turned by p - 1."""
    head = make_head().double()
    embeddings, features = torch.randn(2, 1, 9, 16).double(), None
    embeddings, features = embeddings[0], torch.randn(1, 9, 32).double()
    positions = torch.tensor([[1, 4, 8]])
    with torch.no_grad():
        own = head.log_weights(head.entries(embeddings, features), positions)

    def norm(x, weight):
        return x / (x.pow(2).mean() + 1e-5).sqrt() * weight

    def turned(x, position):
        out = x.clone()
        for i in range(4):
            angle = position * 10000.0 ** (-i / 4)
            a, b = x[i], x[i + 4]
            out[i] = a * math.cos(angle) - b * math.sin(angle)
            out[i + 4] = b * math.cos(angle) + a * math.sin(angle)
        return out

    state = {name: weight.detach() for name, weight in head.state_dict().items()}

    def entry(p):
        fused = state["fc.weight"] @ features[0, p - 1]
        return torch.cat(
            [
                norm(embeddings[0, p], state["midlayer.input_layernorm.weight"]),
                norm(fused, state["midlayer.hidden_norm.weight"]),
            ]
        )

    def project(name, p, h):
        rows = state[f"midlayer.self_attn.{name}_proj.weight"][8 * h : 8 * h + 8]
        return turned(rows @ entry(p), p - 1)

    for i, p in enumerate(positions[0].tolist()):
        for h in range(4):
            scores = torch.stack(
                [project("q", p, h) @ project("k", t, h // 2) for t in range(1, p + 1)]
            )
            wanted = (scores / math.sqrt(8)).log_softmax(0)
            torch.testing.assert_close(own[0, h, i, 1 : p + 1], wanted)
            assert own[0, h, i, 0] < -1e20 and (own[0, h, i, p + 1 :] < -1e20).all()


def test_yarn_keeps_fast_pairs_and_stretches_slow_ones():
    shape = HeadShape(16, (0,), 1, 1, 128, 10000.0, 1e-5)
    own, _ = rope_frequencies(shape)
    stretched, magnitude = rope_frequencies(shape, Yarn(4, 2048))
    assert magnitude == pytest.approx(1.1386, abs=1e-4)
    assert torch.equal(stretched[:17], own[:17])  # ramp from pair 16 to 41
    torch.testing.assert_close(stretched[41:], own[41:] / 4)
    assert (stretched[17:41] < own[17:41]).all() and (stretched[17:41] > own[17:41] / 4).all()


def test_group_reductions():
    weights = torch.tensor([0.1, 0.4, 0.2, 0.6]).log().reshape(1, 4, 1, 1)
    torch.testing.assert_close(reduce_group(weights, 2, "max").exp().flatten(), torch.tensor([0.4, 0.6]))
    torch.testing.assert_close(
        reduce_group(weights, 2, "mean").exp().flatten(), torch.tensor([0.25, 0.4])
    )


def test_selection_holds_sinks_window_and_the_best():
    scores = torch.tensor([0.0, 9, 1, 8, 2, 7, 3, 3, 3, 3, 0, 0]).expand(1, 2, 12)
    chosen = select(scores, budget=6, sinks=1, window=2)
    assert chosen[0, 0].nonzero().flatten().tolist() == [0, 1, 3, 5, 9, 10]  # of position 10
    assert chosen[0, 1].nonzero().flatten().tolist() == [0, 1, 3, 5, 10, 11]


def test_objective_is_cross_entropy_over_the_rows_left_to_choose():
    objective = Objective(parse_terms("max"), sinks=1, window=2, weight="even")
    attention = torch.tensor([5.0, 1, 3, 4, 0, 9]).reshape(1, 1, 1, 6) / 22
    positions = torch.tensor([[5]])
    scores = torch.randn(1, 1, 1, 6, generator=torch.Generator().manual_seed(0))
    loss = objective.loss(scores, {"max": attention}, positions)
    wanted = -(torch.tensor([1.0, 3, 4]) / 8 * scores[0, 0, 0, 1:4].log_softmax(0)).sum()
    torch.testing.assert_close(loss, wanted)


def test_recall_term_counts_what_is_left_out():
    objective = Objective(parse_terms("recall"), sinks=1, window=1, budget=4)
    attention = torch.tensor([0.0, 0.5, 0.3, 0.1, 0.1, 0]).reshape(1, 1, 1, 6)
    scores = torch.tensor([0.0, 90, 80, 0, -10, 0]).reshape(1, 1, 1, 6)
    loss = objective.loss(scores, {"mean": attention}, torch.tensor([[5]]))
    torch.testing.assert_close(loss.item(), 0.2 + 0.3 / 2, rtol=1e-4, atol=1e-4)  # 80 is the border


def test_an_output_takes_the_place_of_regular_files_alone(tmp_path):
    def write(temporary):
        with open(temporary, "w") as file:
            file.write("new")

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="not a regular file"):
        replace_file(str(tmp_path / "pipe"), write)
    (tmp_path / "target").write_text("old")
    os.symlink("target", tmp_path / "link")
    replace_file(str(tmp_path / "link"), write)
    assert os.path.islink(tmp_path / "link")
    assert (tmp_path / "target").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "target"]
