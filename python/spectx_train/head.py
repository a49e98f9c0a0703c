# SPDX-License-Identifier: Apache-2.0
"""The retrieval head: the query and key side of an EAGLE-3 draft layer, and its file."""

import dataclasses
import json
import math
import os

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from . import UserError

NEVER = -1e30  # a log weight; finite, so that no gradient becomes NaN


@dataclasses.dataclass(frozen=True)
class HeadShape:
    hidden: int
    feature_layers: tuple[int, ...]  # 0-based; the residual stream after them
    query_heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float

    def __post_init__(self):
        if self.query_heads % self.kv_heads:
            raise UserError(
                f"{self.query_heads} query heads are no multiple of {self.kv_heads} KV heads"
            )
        if self.head_dim % 2:
            raise UserError(f"the head dimension {self.head_dim} is odd")


@dataclasses.dataclass(frozen=True)
class Yarn:
    factor: float
    original_length: int


def rope_frequencies(shape, yarn=None):
    """(frequencies [head_dim / 2], factor of cos and sin), in float64."""
    half, base = shape.head_dim // 2, shape.rope_theta
    own = base ** (-torch.arange(half, dtype=torch.float64) / half)
    if yarn is None or yarn.factor == 1:
        return own, 1.0

    def pair_of(turns):
        wave = yarn.original_length / (2 * math.pi * turns)
        return shape.head_dim * math.log(wave) / (2 * math.log(base))

    low = max(math.floor(pair_of(32)), 0)
    high = min(math.ceil(pair_of(1)), shape.head_dim - 1)
    ramp = ((torch.arange(half, dtype=torch.float64) - low) / max(high - low, 1e-3)).clamp(0, 1)
    stretched = own / yarn.factor * ramp + own * (1 - ramp)
    return stretched, 0.1 * math.log(yarn.factor) + 1


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Head(nn.Module):
    """state_dict() has EAGLE-3's names. Row p: (embedding of token p, features of row p - 1), at
    RoPE position p - 1; row 0 has no entry."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        h = shape.hidden
        self.fc = nn.Linear(len(shape.feature_layers) * h, h, bias=False)
        self.midlayer = nn.Module()
        self.midlayer.input_layernorm = RMSNorm(h, shape.rms_norm_eps)
        self.midlayer.hidden_norm = RMSNorm(h, shape.rms_norm_eps)
        self.midlayer.self_attn = nn.Module()
        self.midlayer.self_attn.q_proj = nn.Linear(2 * h, shape.query_heads * shape.head_dim, bias=False)
        self.midlayer.self_attn.k_proj = nn.Linear(2 * h, shape.kv_heads * shape.head_dim, bias=False)
        self.yarn = None
        self.reduce = "max"  # how the scores of a KV head's query heads become one

    def initialise(self, generator):
        for weight in self.parameters():
            if weight.dim() == 2:
                weight.data.normal_(0, weight.shape[1] ** -0.5, generator=generator)

    def entries(self, embeddings, features):
        """[batch, rows, H] and [batch, rows, n H] of rows 0.. -> [batch, rows - 1, 2 H] of 1.."""
        layer = self.midlayer
        return torch.cat(
            [
                layer.input_layernorm(embeddings[:, 1:]),
                layer.hidden_norm(self.fc(features[:, :-1])),
            ],
            -1,
        )

    def rotated(self, x, heads, position):
        """[batch, n, heads * d] at positions [batch or 1, n] -> [batch, heads, n, d], turned."""
        frequency, magnitude = rope_frequencies(self.shape, self.yarn)
        angle = position[..., None].double() * frequency.to(x.device)
        cos = (angle.cos() * magnitude).to(x.dtype)[:, None]
        sin = (angle.sin() * magnitude).to(x.dtype)[:, None]
        x = x.unflatten(-1, (heads, self.shape.head_dim)).transpose(1, 2)
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def log_weights(self, entries, positions):
        """[batch, query heads, queries, rows]: log-softmax over rows 1..p of the queries at
        `positions` [batch, queries]; NEVER at row 0 and after p."""
        shape, attention = self.shape, self.midlayer.self_attn
        batch, count = entries.shape[:2]
        own = entries.gather(1, (positions - 1)[..., None].expand(-1, -1, entries.shape[-1]))
        q = self.rotated(attention.q_proj(own), shape.query_heads, positions - 1)
        index = torch.arange(count, device=entries.device)
        k = self.rotated(attention.k_proj(entries), shape.kv_heads, index[None])
        q = q.unflatten(1, (shape.kv_heads, -1)).flatten(2, 3)
        scores = (q @ k.transpose(-1, -2)) * shape.head_dim**-0.5
        scores = scores.unflatten(2, (-1, positions.shape[1])).flatten(1, 2)
        later = index > (positions - 1)[:, None, :, None]
        weights = scores.masked_fill(later, NEVER).log_softmax(-1)
        return nn.functional.pad(weights, (1, 0), value=NEVER)


def reduce_group(log_weights, kv_heads, how):
    """[batch, query heads, ...] -> [batch, KV heads, ...]: the group's maximum, or log mean."""
    grouped = log_weights.unflatten(1, (kv_heads, -1))
    if how == "max":
        return grouped.amax(2)
    return grouped.logsumexp(2) - math.log(grouped.shape[2])


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_output(path):
    """To be called before long work: the path that replace_file will write, links followed."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.exists(target) and not os.path.isfile(target):
        raise UserError(f"{path} cannot be written: it is not a regular file")
    if not os.path.isdir(folder):
        raise UserError(f"{path} cannot be written: {folder} is no folder")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path} cannot be written: {folder} is not writable")
    return target


def replace_file(path, write):
    """Calls write(temporary path), then renames: `path` is never half-written. A link stays."""
    target = check_output(path)
    temporary = f"{target}.{os.getpid()}.part"
    try:
        write(temporary)
        os.chmod(temporary, 0o666 & ~umask())  # safetensors makes files that their owner alone reads
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def save_head(path, shape, weights, metadata, yarn=None, reduce="max"):
    """float16; `reduce` is how query heads are to combine; metadata values are text or become JSON."""
    entries = {
        "architecture": "eagle3-qk",
        "format": "pt",
        "feature_layers": json.dumps(list(shape.feature_layers)),
        "num_attention_heads": shape.query_heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "rope_theta": f"{shape.rope_theta:g}",
        "rms_norm_eps": f"{shape.rms_norm_eps:g}",
        "group_reduce": reduce,
    }
    if yarn is not None:
        entries["rope_scaling"] = {
            "rope_type": "yarn",
            "factor": yarn.factor,
            "original_max_position_embeddings": yarn.original_length,
        }
    entries.update(metadata)
    text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in entries.items()}
    tensors = {name: weight.detach().half().cpu().contiguous() for name, weight in weights.items()}
    replace_file(path, lambda temporary: save_file(tensors, temporary, text))


def load_head(path):
    """(HeadShape, weights in float32, metadata)."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}
        shape = HeadShape(
            hidden=weights["fc.weight"].shape[0],
            feature_layers=tuple(json.loads(metadata["feature_layers"])),
            query_heads=int(metadata["num_attention_heads"]),
            kv_heads=int(metadata["num_key_value_heads"]),
            head_dim=int(metadata["head_dim"]),
            rope_theta=float(metadata["rope_theta"]),
            rms_norm_eps=float(metadata["rms_norm_eps"]),
        )
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is not a retrieval head of this tool: {error}") from error
    return shape, weights, metadata
