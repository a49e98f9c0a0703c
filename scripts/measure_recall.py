#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Share of a model's attention that a retrieval head's selection keeps, measured with transformers.

    measure_recall.py --model FILE.gguf --head FILE.safetensors --text FILE... [--length N]

Row p of the head is (embedding of token p, features of position p - 1) at RoPE position p - 1. The
selection of position p is made from row p, among rows 1 to p; row 0 is a sink. Recall is the mean
over layers, query heads and the last --queries positions of the softmax weight on the selection.
Needs torch, transformers, gguf and safetensors.
"""

import argparse
import json

import torch
from safetensors import safe_open

from reference_model import LastRows, load_model, load_tokenizer


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rope(x, theta):
    """[heads, rows, d], rows at positions 0, 1, ...; the half-split form."""
    half = x.shape[-1] // 2
    angle = torch.outer(
        torch.arange(x.shape[1], dtype=torch.float64),
        theta ** (-torch.arange(half, dtype=torch.float64) / half),
    )
    cos, sin = angle.cos().float(), angle.sin().float()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Head:
    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.meta = file.metadata()
            self.weight = {name: file.get_tensor(name).float() for name in file.keys()}
        self.layers = json.loads(self.meta["feature_layers"])
        self.query_heads = int(self.meta["num_attention_heads"])
        self.kv_heads = int(self.meta["num_key_value_heads"])
        self.head_dim = int(self.meta["head_dim"])

    def log_weights(self, embeddings, features, rows):
        """[query heads, rows, length]: log-softmax over rows 1..p, the last rows only."""
        eps, weight = float(self.meta["rms_norm_eps"]), self.weight
        fused = torch.cat(features, -1)[:-1] @ weight["fc.weight"].T
        entry = torch.cat(
            [
                rms_norm(embeddings[1:], weight["midlayer.input_layernorm.weight"], eps),
                rms_norm(fused, weight["midlayer.hidden_norm.weight"], eps),
            ],
            -1,
        )

        def project(name, heads):
            out = entry @ weight[f"midlayer.self_attn.{name}_proj.weight"].T
            out = out.reshape(-1, heads, self.head_dim).transpose(0, 1)
            return rope(out, float(self.meta["rope_theta"]))

        keys = project("k", self.kv_heads).repeat_interleave(self.query_heads // self.kv_heads, 0)
        queries = project("q", self.query_heads)[:, -rows:]
        scores = queries @ keys.transpose(1, 2) / self.head_dim**0.5
        length = keys.shape[1]
        newest = torch.arange(length - rows, length)[:, None]
        scores.masked_fill_(torch.arange(length)[None] > newest, float("-inf"))
        sink = torch.full((self.query_heads, rows, 1), float("-inf"))
        return torch.cat([sink, scores.log_softmax(-1)], -1)


def reduce_group(log_weights, kv_heads, how):
    grouped = log_weights.reshape(kv_heads, -1, *log_weights.shape[1:])
    return grouped.amax(1) if how == "max" else grouped.logsumexp(1)


def select(scores, budget, sinks, recent):
    """[kv heads, rows, length] bool: the sinks, the recent tokens and the best of the rest."""
    kv_heads, rows, length = scores.shape
    token = torch.arange(length)[None]
    newest = torch.arange(length - rows, length)[:, None]
    forced = (token < sinks) | ((token > newest - recent) & (token <= newest))
    ranked = scores.masked_fill(forced, float("inf")).masked_fill(token > newest, float("-inf"))
    order = ranked.sort(dim=-1, descending=True, stable=True).indices[..., :budget]
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order, True)
    return chosen & (token <= newest)


def recall(attention, chosen):
    """Mean of the softmax weight on `chosen`; attention: [query heads, rows, length] a layer."""
    group = attention[0].shape[0] // chosen.shape[0]
    mask = chosen.repeat_interleave(group, 0)
    return sum(float((layer * mask).sum(-1).mean()) for layer in attention) / len(attention)


class Bench:
    """A model and a head, ready to measure texts."""

    def __init__(self, args):
        self.args = args
        self.attention = LastRows(args.queries)
        self.tokenizer = load_tokenizer(args.model)
        self.model = load_model(args.model, "last_rows")
        self.head = Head(args.head)
        self.features = {}
        for layer in self.head.layers:
            self.model.model.layers[layer].register_forward_hook(
                lambda module, given, out, layer=layer: self.features.__setitem__(
                    layer, (out[0] if isinstance(out, tuple) else out)
                )
            )

    @torch.no_grad()
    def measure(self, path):
        args, kv_heads = self.args, self.head.kv_heads
        with open(path, encoding="utf-8", newline="") as file:
            tokens = self.tokenizer.encode(file.read(), add_special_tokens=False)
        tokens = torch.tensor(tokens[args.skip : args.skip + args.length])
        if len(tokens) < args.length:
            raise SystemExit(f"{path} has only {len(tokens)} tokens from {args.skip} on")
        self.attention.layers = []
        self.model.model(tokens[None], use_cache=False)
        features = [self.features[layer].reshape(args.length, -1) for layer in self.head.layers]
        embeddings = self.model.get_input_embeddings()(tokens)
        log_weights = self.head.log_weights(embeddings, features, args.queries)
        shared = sum(self.attention.layers).log()
        newest = torch.arange(args.length).expand(kv_heads, args.queries, args.length).float()

        def measured(scores):
            chosen = select(scores, args.budget, args.sinks, args.recent)
            return round(recall(self.attention.layers, chosen), 4)

        return {
            "text": path,
            "tokens": args.length,
            "budget": args.budget,
            "sinks": args.sinks,
            "recent": args.recent,
            "recall_max": measured(reduce_group(log_weights, kv_heads, "max")),
            "recall_mean": measured(reduce_group(log_weights, kv_heads, "mean")),
            "recall_best_shared_set": measured(reduce_group(shared, kv_heads, "mean")),
            "recall_newest_tokens": measured(newest),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--head", required=True)
    parser.add_argument("--text", required=True, nargs="+")
    for name, value in (
        ("length", 2048),
        ("skip", 0),
        ("queries", 128),
        ("budget", 512),
        ("sinks", 4),
        ("recent", 32),
        ("threads", 2),
    ):
        parser.add_argument("--" + name, type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    for path in args.text:
        print(json.dumps(bench.measure(path)), flush=True)


if __name__ == "__main__":
    main()
