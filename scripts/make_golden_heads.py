#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/heads: a small checkpoint of each kind of EAGLE-3 head, with what it must give.

    make_golden_heads.py [--out tests/data/heads]

<kind>/config.json and model.safetensors (or <kind>.gguf) are as the kind's trainer or converter
writes them, down to what a reader must skip. golden.safetensors has the target's side,
  tokens [rows] i32, embeddings [vocabulary, H] f32, hidden [layers, rows, H] f32: the residual
  stream that enters each layer,
and of each kind <kind>.q [rows, heads, d] and <kind>.k [rows, KV heads, d] f32, after RoPE: entry p
is made of token p + 1 and of the features of row p, at position p; the last row has none.
The forward is the published one, in float64 from the stored numbers. Needs torch and safetensors.
"""

import argparse
import json
import math
import os
import struct

import torch
from safetensors.torch import save_file

H, VOCABULARY, LAYERS, ROWS = 16, 40, 12, 24
HEADS, KV_HEADS, DIM = 4, 2, 8


class Kind:
    """Weights of one head, by EAGLE's names without the layer's prefix."""

    def __init__(self, seed, width=H, taps=(2, 6, 9), dtype=torch.float16, norm=None, biases=False,
                 qk_norms=False, eps=1e-5, inv_freq=None, magnitude=1.0, own_embeddings=False):
        self.g = torch.Generator().manual_seed(seed)
        self.dtype, self.taps, self.eps, self.norm, self.width = dtype, taps, eps, norm, width
        self.inv_freq, self.magnitude = inv_freq, magnitude
        n = len(taps)
        w = self.weights = {
            "fc.weight": self.random(width, n * H, scale=0.3),
            "input_layernorm.weight": self.random(width, around=1),
            "hidden_norm.weight": self.random(width, around=1),
            "self_attn.q_proj.weight": self.random(HEADS * DIM, 2 * width, scale=0.3),
            "self_attn.k_proj.weight": self.random(KV_HEADS * DIM, 2 * width, scale=0.3),
        }
        if norm == "joint":
            w["input_norm.weight"] = self.random(n * H, around=1)
        if norm == "each":
            for i in range(n):
                w[f"fc_norm.{i}.weight"] = self.random(H, around=1)
        if biases:
            w["fc.bias"] = self.random(width)
            w["self_attn.q_proj.bias"] = self.random(HEADS * DIM)
            w["self_attn.k_proj.bias"] = self.random(KV_HEADS * DIM)
        if qk_norms:
            w["self_attn.q_norm.weight"] = self.random(DIM, around=1)
            w["self_attn.k_norm.weight"] = self.random(DIM, around=1)
        if own_embeddings:
            w["embed_tokens.weight"] = self.random(VOCABULARY, width)

    def random(self, *shape, scale=0.5, around=0):
        return (torch.randn(shape, generator=self.g) * scale + around).to(self.dtype)

    def rms(self, x, name):
        x = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return x * self.weights[name].double()

    def linear(self, x, name):
        y = x @ self.weights[name + ".weight"].double().T
        return y + self.weights[name + ".bias"].double() if name + ".bias" in self.weights else y

    def heads(self, entries, which, count):
        x = self.linear(entries, f"self_attn.{which}_proj").unflatten(-1, (count, DIM))
        if f"self_attn.{which}_norm.weight" in self.weights:
            x = self.rms(x, f"self_attn.{which}_norm.weight")
        inv_freq = self.inv_freq if self.inv_freq is not None else plain(10000)
        angle = torch.arange(len(entries), dtype=torch.float64)[:, None] * inv_freq
        cos, sin = (f(torch.cat([angle, angle], -1))[:, None] * self.magnitude
                    for f in (torch.cos, torch.sin))
        turned = torch.cat([-x[..., DIM // 2 :], x[..., : DIM // 2]], -1)
        return (x * cos + turned * sin).float().contiguous()

    def forward(self, tokens, embeddings, hidden):
        table = self.weights.get("embed_tokens.weight", embeddings).double()
        features = [hidden[layer, :-1].double() for layer in self.taps]
        if self.norm == "each":
            features = [self.rms(f, f"fc_norm.{i}.weight") for i, f in enumerate(features)]
        features = torch.cat(features, -1)
        if self.norm == "joint":
            features = self.rms(features, "input_norm.weight")
        fused = self.linear(features, "fc")
        entries = torch.cat([self.rms(table[tokens[1:].long()], "input_layernorm.weight"),
                             self.rms(fused, "hidden_norm.weight")], -1)
        return {"q": self.heads(entries, "q", HEADS), "k": self.heads(entries, "k", KV_HEADS)}


def plain(theta):
    return theta ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)


def llama3(theta, factor, low, high, original):
    out = []
    for f in plain(theta).tolist():
        wave = 2 * math.pi / f
        smooth = (original / wave - low) / (high - low)
        if wave < original / high:
            out.append(f)
        elif wave > original / low:
            out.append(f / factor)
        else:
            out.append((1 - smooth) * f / factor + smooth * f)
    return torch.tensor(out, dtype=torch.float64)


def yarn(theta, factor, original):
    def correction(turns):
        return DIM * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(correction(32)), 0), min(math.ceil(correction(1)), DIM - 1)
    ramp = ((torch.arange(DIM // 2, dtype=torch.float64) - low) / max(high - low, 1e-3)).clamp(0, 1)
    return plain(theta) / factor * ramp + plain(theta) * (1 - ramp)


def named(kind, layer):
    """The layer's names get the prefix, the head's own do not."""
    own = ("fc", "input_norm.", "embed_tokens.")
    return {(n if n.startswith(own) else layer + n): w for n, w in kind.weights.items()}


def write_folder(folder, kind, layer, config, skipped=()):
    """`skipped`: names of tensors that are there and must not matter."""
    os.makedirs(folder, exist_ok=True)
    tensors = named(kind, layer)
    extra = {
        "d2t": torch.arange(8), "t2d": torch.ones(VOCABULARY, dtype=torch.bool),
        "lm_head.weight": kind.random(8, kind.width), "norm.weight": kind.random(kind.width),
        "embed_tokens.weight": kind.random(VOCABULARY, kind.width),
        layer + "self_attn.v_proj.weight": kind.random(KV_HEADS * DIM, 2 * kind.width),
        layer + "post_attention_layernorm.weight": kind.random(kind.width),
        "layers.1.self_attn.q_proj.weight": kind.random(HEADS * DIM, kind.width),
    }
    tensors.update({name: extra[name] for name in skipped})
    save_file({n: w.contiguous() for n, w in tensors.items()}, f"{folder}/model.safetensors")
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
        file.write("\n")


def write_gguf(path, kind, values, divisors=None):
    """GGUF 3. Rows of q and k are permuted as for every Llama: a head's two halves interleave."""
    def permuted(w, heads):
        return w.reshape(heads, 2, DIM // 2, -1).transpose(1, 2).reshape(w.shape)

    names = {"fc.weight": "fc.weight", "input_layernorm.weight": "blk.0.attn_norm.weight",
             "hidden_norm.weight": "blk.0.attn_norm_2.weight",
             "input_norm.weight": "enc.output_norm.weight",
             "self_attn.q_proj.weight": "blk.0.attn_q.weight",
             "self_attn.k_proj.weight": "blk.0.attn_k.weight"}
    tensors = {names[n]: w for n, w in kind.weights.items()}
    tensors["blk.0.attn_q.weight"] = permuted(tensors["blk.0.attn_q.weight"], HEADS)
    tensors["blk.0.attn_k.weight"] = permuted(tensors["blk.0.attn_k.weight"], KV_HEADS)
    tensors["d2t"] = torch.arange(8)
    if divisors is not None:
        tensors["rope_freqs.weight"] = divisors.float()

    def text(s):
        return struct.pack("<Q", len(s)) + s.encode()

    def pair(key, value):
        if isinstance(value, bool):
            return text(key) + struct.pack("<I?", 7, value)
        if isinstance(value, int):
            return text(key) + struct.pack("<II", 4, value)
        if isinstance(value, float):
            return text(key) + struct.pack("<If", 6, value)
        if isinstance(value, str):
            return text(key) + struct.pack("<I", 8) + text(value)
        return text(key) + struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)

    data, infos = b"", b""
    for name, w in tensors.items():
        w = w.float() if w.dim() == 1 and w.is_floating_point() else w
        number = {torch.float32: 0, torch.float16: 1, torch.int64: 27, torch.bfloat16: 30}[w.dtype]
        infos += text(name) + struct.pack("<I", w.dim())
        infos += struct.pack(f"<{w.dim()}Q", *reversed(w.shape)) + struct.pack("<IQ", number, len(data))
        data += w.contiguous().view(torch.uint8).numpy().tobytes()
        data += b"\0" * (-len(data) % 32)
    values = {"general.architecture": "eagle3", **{f"eagle3.{k}": v for k, v in values.items()}}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    head += b"".join(pair(k, v) for k, v in values.items()) + infos
    with open(path, "wb") as file:
        file.write(head + b"\0" * (-len(head) % 32) + data)


SIZES = {"hidden_size": H, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
         "head_dim": DIM, "vocab_size": VOCABULARY, "draft_vocab_size": 8, "num_hidden_layers": 1}
GGUF_SIZES = {"block_count": 1, "embedding_length": H, "attention.head_count": HEADS,
              "attention.head_count_kv": KV_HEADS, "rope.dimension_count": DIM,
              "vocab_size": VOCABULARY, "target_hidden_size": H}


def without(sizes, *keys):
    return {k: v for k, v in sizes.items() if k not in keys}


def write_kinds(out):
    """What each kind's files are; gives the Kinds by name."""
    kinds = {}

    def add(name, kind):
        kinds[name] = kind
        return f"{out}/{name}", kind

    # EAGLE: no layer ids, no head_dim, no theta; trained with 10000.
    folder, kind = add("eagle", Kind(1))
    write_folder(folder, kind, "midlayer.", {
        "architectures": ["LlamaForCausalLM"], **without(SIZES, "head_dim"), "hidden_size": H,
        "num_attention_heads": HEADS, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048,
        "torch_dtype": "float16", "bias": False,
    }, ["d2t", "t2d", "lm_head.weight", "norm.weight", "midlayer.self_attn.v_proj.weight"])

    # EAGLE for a target that is wider than the head: embeddings of its own.
    folder, kind = add("eagle_narrow", Kind(2, width=12, own_embeddings=True))
    write_folder(folder, kind, "midlayer.", {
        "architectures": ["LlamaForCausalLM"], **SIZES, "hidden_size": 12, "target_hidden_size": H,
        "rms_norm_eps": 1e-5}, ["d2t"])

    # SpecForge: ids of what leaves layers (the first is 1), norms of the hidden states (3.1).
    folder, kind = add("specforge", Kind(3, taps=(2, 5, 10), norm="each", dtype=torch.bfloat16,
                                         eps=1e-6, inv_freq=llama3(500000, 8, 1, 4, 64)))
    write_folder(folder, kind, "midlayer.", {
        "architectures": ["LlamaForCausalLMEagle3"], **SIZES, "rms_norm_eps": 1e-6,
        "rope_theta": 500000, "fc_norm": True, "norm_output": True, "attention_bias": False,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 4, 9],
                         "use_aux_hidden_state": True},
    }, ["d2t", "t2d", "embed_tokens.weight"])

    # speculators: a nested config of a Qwen3 layer, ids of what enters layers, YaRN.
    magnitude = 0.1 * math.log(4) + 1
    folder, kind = add("speculators", Kind(4, taps=(1, 6, 11), norm="joint", qk_norms=True,
                                           dtype=torch.bfloat16, eps=1e-6, magnitude=magnitude,
                                           inv_freq=yarn(1000000, 4, 32)))
    write_folder(folder, kind, "layers.0.", {
        "architectures": ["Eagle3Speculator"], "speculators_model_type": "eagle3",
        "draft_vocab_size": 8, "norm_before_residual": True, "norm_before_fc": True,
        "target_hidden_size": None, "eagle_aux_hidden_state_layer_ids": [1, 6, 11],
        "transformer_layer_config": {
            "model_type": "qwen3", **SIZES, "rms_norm_eps": 1e-6, "attention_bias": False,
            "rope_parameters": {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0,
                                "original_max_position_embeddings": 32}},
    }, ["d2t", "t2d", "embed_tokens.weight", "layers.1.self_attn.q_proj.weight"])

    # AngelSlim: a head_dim and a theta that are not the weights'; biases.
    folder, kind = add("angelslim", Kind(5, dtype=torch.bfloat16, eps=1e-6, biases=True))
    write_folder(folder, kind, "midlayer.", {
        "architectures": ["Eagle3LlamaForCausalLM"], **without(SIZES, "head_dim"), "head_dim": 4,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000, "rope_scaling": None, "bias": True,
        "attention_bias": True, "tie_word_embeddings": True,
    }, ["d2t", "t2d", "lm_head.weight"])

    # DeepSpec: five features, ids of what leaves layers, whatever the first is.
    folder, kind = add("deepspec", Kind(6, taps=(3, 5, 7, 9, 11), qk_norms=True, eps=1e-6,
                                        dtype=torch.bfloat16, inv_freq=plain(1000000) / 2))
    write_folder(folder, kind, "model.layers.0.", {
        "architectures": ["Qwen3Eagle3Model"], **SIZES, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000, "rope_scaling": {"type": "linear", "factor": 2.0},
        "target_layer_ids": [2, 4, 6, 8, 10]}, [])

    # llama.cpp, today's keys and the first version's.
    path, kind = add("gguf", Kind(7, taps=(2, 5, 8), norm="joint", inv_freq=plain(1000000)))
    write_gguf(path + ".gguf", kind, {
        **GGUF_SIZES, "target_layers": [2, 5, 8], "rope.freq_base": 1000000.0,
        "attention.key_length": DIM, "attention.layer_norm_rms_epsilon": 1e-5,
        "norm_before_fc": True, "norm_before_residual": False})
    divisors = torch.tensor([1.0, 1.0, 4.0, 8.0])
    path, kind = add("gguf_first", Kind(8, taps=(1, 4, 9), inv_freq=plain(10000) / divisors.double()))
    write_gguf(path + ".gguf", kind, {
        **GGUF_SIZES, "extract_layers": [1, 4, 9], "attention.layer_norm_rms_epsilon": 1e-5},
        divisors)
    return kinds


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", default=os.path.join(here, "../tests/data/heads"))
    out = arguments.parse_args().out
    os.makedirs(out, exist_ok=True)
    g = torch.Generator().manual_seed(20251122)
    golden = {
        "tokens": torch.randint(0, VOCABULARY, (ROWS,), generator=g, dtype=torch.int32),
        "embeddings": torch.randn(VOCABULARY, H, generator=g),
        "hidden": torch.randn(LAYERS, ROWS, H, generator=g) * 3,
    }
    for name, kind in write_kinds(out).items():
        for which, x in kind.forward(*(golden[n] for n in ("tokens", "embeddings", "hidden"))).items():
            golden[f"{name}.{which}"] = x
    save_file(golden, f"{out}/golden.safetensors")


if __name__ == "__main__":
    main()
