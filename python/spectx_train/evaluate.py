# SPDX-License-Identifier: Apache-2.0
"""What a head's selection keeps of the target's attention on held-out text, and what it costs.

recall: share of the softmax weight on the selection, mean over layers, query heads and the last
`rows` positions of each text. loss_increase: next-token loss at these positions when the selection
replaces full attention in every layer, minus that of full attention.
"""

import collections

import torch

from .head import reduce_group
from .teacher import Teacher


def select(scores, budget, sinks, window):
    """[KV heads, rows, length] bool, rows being the last: sinks, recent window, best of the rest."""
    length, rows = scores.shape[-1], scores.shape[-2]
    token = torch.arange(length, device=scores.device)
    newest = torch.arange(length - rows, length, device=scores.device)[:, None]
    forced = (token < sinks) | ((token > newest - window) & (token <= newest))
    ranked = scores.masked_fill(forced, float("inf")).masked_fill(token > newest, float("-inf"))
    order = ranked.sort(dim=-1, descending=True, stable=True).indices[..., :budget]
    chosen = torch.zeros_like(ranked, dtype=torch.bool).scatter_(-1, order, True)
    return chosen & (token <= newest)


class RecallMeter:
    """Recall of every mask, layer by layer."""

    def __init__(self, masks, positions):
        self.masks, self.positions = masks, positions
        self.layers = []  # [masks] each

    def __call__(self, module, query, key, value, scale):
        teacher = Teacher({"mean"}, self.positions)
        teacher(module, query, key, value, scale)
        weights = teacher.maps()["mean"][0]
        kept = [(weights * mask).sum(-1).mean() for mask in self.masks]
        self.layers.append(torch.stack(kept))


class Report:
    """Figures of several heads at one length."""

    def __init__(self, target, heads, sinks, window, rows=128):
        self.target, self.heads = target, heads
        self.sinks, self.window, self.rows = sinks, window, rows
        self.features = sorted(set().union(*(h.shape.feature_layers for h in heads.values())))

    @torch.no_grad()
    def measure(self, sequences, budgets):
        """sequences: (name, [length + 1] tokens), all of one length."""
        recalls, losses = collections.defaultdict(list), collections.defaultdict(list)
        full = []
        for _, tokens in sequences:
            tokens = tokens.to(self.target.device)
            masks, full_loss = self.selections(tokens, budgets)
            full.append(full_loss)
            positions = self.positions(tokens)
            meter = RecallMeter(list(masks.values()), positions)
            self.target.run(tokens[None, :-1], observer=meter)
            for key, layers in zip(masks, torch.stack(meter.layers, 1).cpu()):
                recalls[key].append(layers)
            for key, mask in masks.items():
                if key[1] is None or key[1] == self.heads[key[0]].reduce:
                    losses[key].append(self.loss(tokens, mask) - full_loss)
        rows = []
        for (name, how, budget), layers in recalls.items():
            per_layer = torch.stack(layers).mean(0)
            row = {"selection": name, "group": how, "budget": budget}
            row["recall"] = round(per_layer.mean().item(), 4)
            row["recall_worst_layer"] = round(per_layer.min().item(), 4)
            if key_losses := losses.get((name, how, budget)):
                row["loss_increase"] = round(sum(key_losses) / len(key_losses), 4)
            rows.append(row)
        return {
            "length": len(sequences[0][1]) - 1,
            "texts": [name for name, _ in sequences],
            "positions": self.rows,
            "sinks": self.sinks,
            "window": self.window,
            "full_attention_loss": round(sum(full) / len(full), 4),
            "rows": rows,
        }

    def positions(self, tokens):
        length = len(tokens) - 1
        return torch.arange(length - self.rows, length, device=tokens.device)[None]

    def selections(self, tokens, budgets):
        """{(name, group reduction, budget): mask}, and the loss of full attention."""
        positions = self.positions(tokens)
        shared = Teacher({"mean"}, positions)
        given = tokens[None, :-1]
        hidden, residuals = self.target.run(given, self.features, shared)
        length = given.shape[1]
        scores = {
            ("best shared set", None): shared.maps()["mean"][0],
            ("most recent tokens", None): torch.arange(length, device=tokens.device)
            .expand(self.target.kv_heads, self.rows, length)
            .float(),
        }
        embeddings = self.target.embed(given).float()
        for name, head in self.heads.items():
            features = torch.cat([residuals[i] for i in head.shape.feature_layers], -1).float()
            log_weights = head.log_weights(head.entries(embeddings, features), positions)
            for how in ("max", "mean"):
                reduced = reduce_group(log_weights, head.shape.kv_heads, how)[0]
                spread = self.target.kv_heads // head.shape.kv_heads
                scores[name, how] = reduced.repeat_interleave(spread, 0)
        masks = {
            (*key, budget): select(value, budget, self.sinks, self.window)
            for key, value in scores.items()
            for budget in budgets
        }
        return masks, self.next_token_loss(hidden, tokens)

    def loss(self, tokens, mask):
        hidden, _ = self.target.run(tokens[None, :-1], selection=mask)
        return self.next_token_loss(hidden, tokens)

    def next_token_loss(self, hidden, tokens):
        logits = self.target.logits(hidden[0, -self.rows :]).float()
        return torch.nn.functional.cross_entropy(logits, tokens[-self.rows :]).item()


def table(report):
    """The report as lines of text."""
    budgets = sorted({row["budget"] for row in report["rows"]})
    lines = [
        f"held-out text, {report['length']} tokens, {len(report['texts'])} texts, "
        f"loss of full attention {report['full_attention_loss']:.3f}",
        f"{'selection':<32}" + "".join(f"{f'recall {b}':>12}" for b in budgets)
        + "".join(f"{f'loss+ {b}':>12}" for b in budgets),
    ]
    found = {(r["selection"], r["group"], r["budget"]): r for r in report["rows"]}
    for name, how in dict.fromkeys((r["selection"], r["group"]) for r in report["rows"]):
        label = name if how is None else f"{name}, group {how}"
        rows = [found[name, how, budget] for budget in budgets]
        line = f"{label:<32}" + "".join(f"{row['recall']:>12.4f}" for row in rows)
        lines.append(line + "".join(
            f"{row['loss_increase']:>+12.4f}" if "loss_increase" in row else " " * 12 for row in rows
        ))
    return lines
