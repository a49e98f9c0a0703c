#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/tiny_qwen3.gguf and tiny_qwen3_logits.safetensors with transformers.

    make_golden_qwen3.py [--out tests/data]

A Qwen3 with random weights, small enough for a test, and its logits in float32 with eager attention:
tokens [n] i32, logits [n, vocabulary] f32. Needs torch, transformers, gguf and safetensors.
"""
import argparse
import os

import gguf
import torch
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight":
                "output_norm.weight", "lm_head.weight": "output.weight"}[name]
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{NAMES[part]}.weight"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tests/data")
    args = parser.parse_args()
    torch.manual_seed(20251122)
    config = Qwen3Config(vocab_size=48, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                         max_position_embeddings=256, rms_norm_eps=1e-6,
                         rope_parameters={"rope_type": "default", "rope_theta": 1e6},
                         tie_word_embeddings=False, attn_implementation="eager")
    model = Qwen3ForCausalLM(config).float().eval()
    for name, weight in model.named_parameters():
        centre = 1.0 if weight.dim() == 1 else 0.0
        weight.data.normal_(centre, 0.3 if weight.dim() == 1 else 0.25)
    tokens = torch.tensor([(n * 37 + n // 5) % 48 for n in range(60)])
    with torch.no_grad():
        logits = model(input_ids=tokens[None]).logits[0]
    save_file({"tokens": tokens.int(), "logits": logits.contiguous()},
              os.path.join(args.out, "tiny_qwen3_logits.safetensors"))

    file = gguf.GGUFWriter(os.path.join(args.out, "tiny_qwen3.gguf"), "qwen3")
    file.add_block_count(config.num_hidden_layers)
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_key_length(config.head_dim)
    file.add_value_length(config.head_dim)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_freq_base(1e6)
    for name, weight in model.named_parameters():
        file.add_tensor(gguf_name(name), weight.data.numpy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


if __name__ == "__main__":
    main()
