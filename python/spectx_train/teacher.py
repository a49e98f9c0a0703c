# SPDX-License-Identifier: Apache-2.0
"""The target's attention of sampled queries, reduced over heads and layers as it streams past."""

import functools
import math

import torch

from . import UserError

SCORE_BYTES = 1 << 28  # of one block of scores

# How the attention of all layers becomes one map: what is read of a layer, and how layers combine.
KINDS = {
    "mean": ("weight", "sum"),
    "max": ("weight", "max"),
    "value": ("value", "sum"),
    "maxvalue": ("value", "max"),
    "peak": ("peak", "max"),
    "square": ("weight", "square"),
}


def visible(scores, begin, positions):
    """Scores of keys begin.. with those after each query's position left out, in place."""
    column = torch.arange(begin, begin + scores.shape[-1], device=scores.device)
    return scores.masked_fill_(column > positions[:, None, None, :, None], -math.inf)


def log_sums(scores, begin, positions, norms):
    """[the log of a softmax's denominator over these keys, and the same weighted by `norms`]"""
    scores = visible(scores, begin, positions)
    return [s.logsumexp(-1, keepdim=True) for s in weighted(scores, norms)]


def weighted(scores, norms):
    return [scores] if norms is None else [scores, scores + norms]


def read_block(scores, begin, positions, norms, totals, wanted):
    """{what: [batch, KV heads, queries, keys]} of scores [batch, KV heads, group, queries, keys],
    which it overwrites; `totals` are log_sums over all keys, None where these are all keys."""
    parts = weighted(visible(scores, begin, positions), norms)
    if totals is None:
        parts = [s.softmax(-1) for s in parts]
    else:
        parts = [(s - total).exp_() for s, total in zip(parts, totals)]
    read = {"weight": parts[0].mean(2)}
    if "peak" in wanted:
        read["peak"] = parts[0].amax(2)
    if norms is not None:
        read["value"] = parts[1].mean(2)
    return read


class Teacher:
    """maps()[kind] is [batch, KV heads, queries, length] in float32; no [length, length] tensor is
    ever made: scores exist for the sampled queries and a block of keys of one layer."""

    def __init__(self, kinds, positions, score_bytes=SCORE_BYTES, read=None):
        self.read = read or read_block
        self.kinds = sorted(kinds)
        self.positions = positions  # [batch, queries]
        self.score_bytes = score_bytes
        self.sums = {}
        self.layers = 0

    def __call__(self, module, query, key, value, scale):
        """One layer: q [batch, heads, length, d], k and v [batch, KV heads, length, d]."""
        batch, heads, length, dim = query.shape
        kv_heads, count = key.shape[1], self.positions.shape[1]
        index = self.positions[:, None, :, None].expand(-1, heads, -1, dim)
        q = query.gather(2, index).float() * scale
        q = q.unflatten(1, (kv_heads, -1)).flatten(2, 3)
        columns = max(self.score_bytes // (4 * batch * heads * count), 1)
        blocks = [(i, min(i + columns, length)) for i in range(0, length, columns)]
        wanted = {KINDS[kind][0] for kind in self.kinds}
        norms = None
        if "value" in wanted:
            norms = value_norms(module, value, heads).log().unflatten(1, (kv_heads, -1))

        def scores(begin, end):
            s = q @ key[:, :, begin:end].float().transpose(2, 3)
            return s.unflatten(2, (-1, count))  # [batch, KV heads, group, queries, keys]

        def norms_of(begin, end):
            return None if norms is None else norms[:, :, :, None, begin:end]

        totals = None
        if len(blocks) > 1:
            totals = functools.reduce(
                lambda sums, new: [torch.logaddexp(a, b) for a, b in zip(sums, new)],
                (log_sums(scores(*b), b[0], self.positions, norms_of(*b)) for b in blocks),
            )
        for block in blocks:
            read = self.read(
                scores(*block), block[0], self.positions, norms_of(*block), totals, wanted
            )
            for kind in self.kinds:
                source, how = KINDS[kind]
                self.enter(kind, how, read[source], block, length)
        self.layers += 1

    def enter(self, kind, how, part, block, length):
        if kind not in self.sums:
            self.sums[kind] = part.new_zeros(*part.shape[:-1], length)
        into = self.sums[kind][..., block[0] : block[1]]
        if how == "max":
            torch.maximum(into, part, out=into)
        elif how == "square":
            into.addcmul_(part, part)
        else:
            into.add_(part)

    def maps(self):
        if self.layers == 0:
            raise UserError("the target has no layer of full attention to learn from")
        return {
            kind: total.sqrt() if KINDS[kind][1] == "square" else total
            for kind, total in self.sums.items()
        }


def value_norms(module, value, heads):
    """[batch, heads, length]: the norm of what a row adds to the residual stream per unit of weight."""
    out = getattr(module, "o_proj", None) or getattr(module, "out_proj", None)
    dim = value.shape[-1]
    if out is None or out.weight.shape[1] != heads * dim:
        raise UserError("value-weighted objectives need an attention module with an o_proj")
    weight = out.weight.float().unflatten(1, (heads, dim))
    gram = torch.einsum("ohd,ohe->hde", weight, weight)
    v = value.float().repeat_interleave(heads // value.shape[1], 1)
    return torch.einsum("bhtd,hde,bhte->bht", v, gram, v).clamp_min(1e-20).sqrt()
