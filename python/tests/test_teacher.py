# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from transformers import AutoModelForCausalLM

from spectx_train.teacher import KINDS, Teacher

EPS = torch.finfo(torch.float32).eps


@pytest.fixture(scope="module")
def seen(model_folder):
    """Tokens and [layers][batch, heads, length, length] from transformers' own eager attention."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="eager")
    tokens = torch.randint(256, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return tokens, model(tokens, output_attentions=True), model


def positions():
    return torch.tensor([[3, 17, 39], [0, 20, 38]])


def maps_of(target, tokens, score_bytes):
    teacher = Teacher(KINDS, positions(), score_bytes)
    hidden, residuals = target.run(tokens, (0, 2), teacher)
    return teacher.maps(), hidden, residuals


def grouped(attention):
    """[layers, batch, KV heads, group, queries, length] of the queries at positions()."""
    rows = [
        layer.gather(2, positions()[:, None, :, None].expand(-1, 6, -1, 40)) for layer in attention
    ]
    return torch.stack(rows).unflatten(2, (3, 2))


def test_maps_are_those_of_full_attention(target, seen):
    tokens, out, model = seen
    own, hidden, residuals = maps_of(target, tokens, 1 << 28)
    weights = grouped(out.attentions)
    mean = weights.mean(3)
    wanted = {
        "mean": mean.sum(0),
        "max": mean.amax(0),
        "peak": weights.amax((0, 3)),
        "square": mean.pow(2).sum(0).sqrt(),
    }
    for kind, expected in wanted.items():
        torch.testing.assert_close(own[kind], expected, rtol=64 * EPS, atol=64 * EPS)
    for layer, residual in residuals.items():
        assert_near(residual, model_residual(model, tokens, layer))
    assert_near(hidden, model.base_model(tokens).last_hidden_state)


def assert_near(own, wanted):
    """Sums over layers in float32: an error of the largest element's size."""
    assert (own - wanted).abs().max() <= 64 * EPS * wanted.abs().max()


def model_residual(model, tokens, layer):
    with torch.no_grad():
        return model(tokens, output_hidden_states=True).hidden_states[layer + 1]


def test_value_map_weighs_by_what_a_row_adds(target, seen):
    tokens, out, model = seen
    own, _, _ = maps_of(target, tokens, 1 << 28)
    total = 0
    states = model(tokens, output_hidden_states=True).hidden_states
    for layer, attention in enumerate(out.attentions):
        block = model.base_model.layers[layer]
        value = block.self_attn.v_proj(block.input_layernorm(states[layer])).unflatten(-1, (3, 8))
        weight = block.self_attn.o_proj.weight.unflatten(1, (6, 8))
        size = torch.einsum("ohd,bthd->bhto", weight, value.repeat_interleave(2, 2)).norm(dim=-1)
        share = grouped([attention])[0] * size.unflatten(1, (3, 2))[:, :, :, None]
        total = total + (share / share.sum(-1, keepdim=True)).mean(2)
    torch.testing.assert_close(own["value"], total, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 7, 39])
def test_blocks_of_keys_change_nothing(target, seen, columns):
    tokens = seen[0]
    whole, _, _ = maps_of(target, tokens, 1 << 28)
    blocked, _, _ = maps_of(target, tokens, columns * 4 * 2 * 6 * 3)
    for kind in KINDS:
        torch.testing.assert_close(blocked[kind], whole[kind], rtol=64 * EPS, atol=64 * EPS)
