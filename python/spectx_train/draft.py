# SPDX-License-Identifier: Apache-2.0
"""The rest of an EAGLE-3 draft layer, needed by the draft loss alone and never saved."""

import torch
from torch import nn

from .head import RMSNorm


class DraftTail(nn.Module):
    def __init__(self, shape, value_dim):
        super().__init__()
        h, inner = shape.hidden, 3 * shape.hidden
        self.shape, self.value_dim = shape, value_dim
        self.v_proj = nn.Linear(2 * h, shape.kv_heads * value_dim, bias=False)
        self.o_proj = nn.Linear(shape.query_heads * value_dim, h, bias=False)
        self.post_attention_layernorm = RMSNorm(h, shape.rms_norm_eps)
        self.gate_proj = nn.Linear(h, inner, bias=False)
        self.up_proj = nn.Linear(h, inner, bias=False)
        self.down_proj = nn.Linear(inner, h, bias=False)
        self.norm = RMSNorm(h, shape.rms_norm_eps)

    def initialise(self, generator):
        for weight in self.parameters():
            if weight.dim() == 2:
                weight.data.normal_(0, weight.shape[1] ** -0.5, generator=generator)

    def forward(self, entries, features, log_weights, positions):
        """What the draft layer hands to the target's output embeddings: [batch, queries, H].
        features [batch, rows, H] after fc, of row p - 1 for the query at p."""
        shape = self.shape
        value = self.v_proj(entries).unflatten(-1, (shape.kv_heads, self.value_dim)).transpose(1, 2)
        weights = log_weights[..., 1:].exp().unflatten(1, (shape.kv_heads, -1))
        attended = (weights @ value[:, :, None]).flatten(1, 2).transpose(1, 2).flatten(2)
        index = (positions - 1)[..., None].expand(-1, -1, features.shape[-1])
        x = features.gather(1, index) + self.o_proj(attended)
        y = self.post_attention_layernorm(x)
        x = x + self.down_proj(nn.functional.silu(self.gate_proj(y)) * self.up_proj(y))
        return self.norm(x)


def draft_loss(drafted_logits, target_logits):
    """Cross entropy of the drafted next token's distribution with the target's."""
    wanted = target_logits.float().softmax(-1)
    return -(wanted * drafted_logits.float().log_softmax(-1)).sum(-1).mean()
