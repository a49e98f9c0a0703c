# SPDX-License-Identifier: Apache-2.0
"""The independent implementation that spectx is compared with: transformers on a GGUF's weights."""

import os

import gguf
import torch
from tokenizers import decoders, pre_tokenizers
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer


def load_model(path, attention="eager"):
    """The model in float32, each weight equal to gguf's own dequantisation."""
    folder, name = os.path.split(os.path.abspath(path))
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, attn_implementation=attention
    ).eval()
    check_weights(model, path)
    return model


def check_weights(model, path):
    """Raises where transformers' weights are not the file's, rows of q and k reordered apart.

    A GGUF of this family holds the rows of attn_q and attn_k pair by pair (row 2i turns with row
    2i+1 of a head); transformers wants the halves apart (row i turns with row i + d/2).
    """
    heads = {"q": model.config.num_attention_heads, "k": model.config.num_key_value_heads}
    names = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    state = model.state_dict()
    for tensor in gguf.GGUFReader(path).tensors:
        weight = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        part = tensor.name.split(".")
        if part[0] == "blk":
            name = f"model.layers.{part[1]}.{names[part[2]]}.weight"
            if part[2] in ("attn_q", "attn_k"):
                shape = (heads[part[2][-1]], -1, 2, weight.shape[1])
                weight = weight.reshape(shape).transpose(1, 2).reshape(weight.shape)
        else:
            name = {
                "token_embd": "model.embed_tokens",
                "output_norm": "model.norm",
                "output": "lm_head",
            }[part[0]] + ".weight"
        if not torch.equal(state[name], weight.reshape(state[name].shape)):
            raise SystemExit(f"{name} is not what {tensor.name} dequantises to")


def load_tokenizer(path):
    """The GGUF's tokenizer, with what transformers leaves out of "smollm": digits alone."""
    folder, name = os.path.split(os.path.abspath(path))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    field = gguf.GGUFReader(path).fields["tokenizer.ggml.pre"]
    if field.contents() != "smollm":
        raise SystemExit("only the pre-tokenizer smollm is known here")
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return tokenizer


class LastRows:
    """Attention that also keeps the softmax rows of the last `rows` positions, layer by layer."""

    def __init__(self, rows):
        self.rows = rows
        self.layers = []  # each [query heads, rows, length]
        AttentionInterface.register("last_rows", self)

    def __call__(self, module, query, key, value, attention_mask, scaling, **kwargs):
        group = query.shape[1] // key.shape[1]
        key = key.repeat_interleave(group, dim=1)
        value = value.repeat_interleave(group, dim=1)
        length = key.shape[2]
        scores = query[0, :, -self.rows :] @ key[0].transpose(1, 2) * scaling
        position = torch.arange(length - self.rows, length)[:, None]
        scores.masked_fill_(torch.arange(length)[None, :] > position, float("-inf"))
        self.layers.append(scores.softmax(-1))
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling
        )
        return out.transpose(1, 2).contiguous(), None
