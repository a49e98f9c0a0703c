# SPDX-License-Identifier: Apache-2.0
"""What a head is trained towards."""

import dataclasses

import torch

from . import UserError
from .head import NEVER, reduce_group
from .teacher import KINDS

RECALL_WIDTH = 0.5  # nats around the border of the selection that still move the recall term
TERMS = (*KINDS, "recall", "draft")


def parse_terms(text):
    """ "max:1,draft:0.3" -> {"max": 1.0, "draft": 0.3} """
    terms = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        try:
            terms[name] = float(weight or 1)
        except ValueError as error:
            raise UserError(f"--objective {text}: {weight} is not a number") from error
        if name not in TERMS:
            raise UserError(f"--objective {text}: {name} is none of {', '.join(TERMS)}")
        if not 0 < terms[name] < float("inf"):
            raise UserError(f"--objective {text}: the weight of {name} must be positive")
    return terms


@dataclasses.dataclass(frozen=True)
class Objective:
    """Cross entropy of the head's log weights, reduced over each group as at inference, with the
    target's attention map. `forced` "drop" leaves out the rows that every selection holds anyway;
    `weight` "residual" then counts each query by the attention that is left."""

    terms: dict
    reduce: str = "mean"
    forced: str = "drop"
    weight: str = "residual"
    temperature: float = 1.0
    sinks: int = 4
    window: int = 32
    budget: int = 512  # of the recall term

    @property
    def kinds(self):
        """Attention maps that loss() reads."""
        names = {name for name in self.terms if name in KINDS}
        return names | ({"mean"} if "recall" in self.terms else set())

    def open_rows(self, positions, length):
        """[batch, 1, queries, length]: the rows that the head has to rank."""
        column = torch.arange(length, device=positions.device)
        newest = positions[:, None, :, None]
        if self.forced == "drop":
            return (column >= max(self.sinks, 1)) & (column <= newest - self.window)
        return (column >= 1) & (column <= newest)

    def target(self, maps, open_rows):
        """[batch, KV heads, queries, length]; sums to 1 over the open rows, or to the share of the
        attention that they have, scaled to a mean of 1."""
        total = 0
        for kind in KINDS:
            if kind in self.terms:
                attention = maps[kind]
                if self.temperature != 1:
                    attention = attention.pow(1 / self.temperature)
                total = total + self.terms[kind] * attention / attention.sum(-1, keepdim=True)
        kept = total * open_rows
        mass = kept.sum(-1, keepdim=True)
        if self.weight == "residual":
            scale = mass.mean() / sum(w for kind, w in self.terms.items() if kind in KINDS)
        else:
            scale = mass
        return kept / scale.clamp_min(1e-9)

    def loss(self, log_weights, maps, positions):
        """log_weights [batch, query heads, queries, length], as Head.log_weights gives them."""
        kv_heads = next(iter(maps.values())).shape[1]
        open_rows = self.open_rows(positions, log_weights.shape[-1])
        scores = reduce_group(log_weights, kv_heads, self.reduce).masked_fill(~open_rows, NEVER)
        loss = 0
        if self.kinds & set(self.terms):
            target = self.target(maps, open_rows)
            log_total = scores.logsumexp(-1)
            cross = target.sum(-1) * log_total - (target * scores).sum(-1)
            loss = cross.mean()
        if "recall" in self.terms:
            loss = loss + self.terms["recall"] * self.missed(scores, maps["mean"] * open_rows)
        return loss

    def missed(self, scores, attention):
        """The open rows' attention that a soft selection of the budget leaves out, as a share."""
        count = min(max(self.budget - self.sinks - self.window, 1), scores.shape[-1])
        scores = scores - scores.logsumexp(-1, keepdim=True)
        border = scores.detach().topk(count, dim=-1, sorted=True).values[..., -1:]
        chosen = torch.sigmoid((scores - border) / RECALL_WIDTH)
        return 1 - (attention * chosen).sum() / attention.sum().clamp_min(1e-9)
