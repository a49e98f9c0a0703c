#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/golden_tokens.json and golden_logits.safetensors with transformers.

    make_golden.py --model FILE.gguf [--text tests/data/golden_text.txt] [--out tests/data]

golden_tokens.json: token ids of difficult strings, with control tokens read as such and as plain
text, and conversations rendered by the model's own chat template.
golden_logits.safetensors, for the text's first --length tokens, in float32 with eager attention:
  tokens, top1 [n] i32; top1_logit, runner_up_logit, mean, log_sum_exp [n] f32;
  sample_ids [16] i32, sample_logits [n, 16] f32: the logits of some fixed tokens;
  norm_positions [64] i32, norm_layers [5] i32, norms [64, 5] f32: length of the residual stream
  behind those layers (0-based), before the final norm.
Needs torch, transformers, accelerate, gguf and safetensors.
"""

import argparse
import json
import os
import random

import torch
from safetensors.torch import save_file

from reference_model import load_model, load_tokenizer

SEED = 20251122
NORM_LAYERS = (0, 1, 14, 26, 29)
SPACES = " \t\n\r\v\f\u0085\u00a0\u1680\u2003\u2028\u202f\u3000\u180e\u200b\ufeff"
STRINGS = [
    "",
    " ",
    "  ",
    "a",
    " a",
    "a ",
    "\n",
    "\r\n",
    "\t\t",
    "Hello world",
    " Hello  world   again    .",
    "The quick brown fox jumps over the lazy dog.",
    "It's I'm you're we've they'll he'd can't 'S 'T 'RE ' s o'clock rock'n'roll ''s",
    "1",
    "12",
    " 1",
    "  12",
    "a1b22c333",
    "3.14159 1,000,000 0xFF 1e-9",
    "10 20  30\n40",
    "\u0663\u0664 \u00bd \u2167 \u00b2 \u2460 \u4e00\u4e8c\u4e09 \uff11\uff12",
    "def f(x):\n    return x ** 2\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b; }",
    "#include <vector>\r\n#define X(a) #a\r\n",
    '<html><body class="x">&nbsp;</body></html>',
    "line one\nline two\r\nline three\rline four\n\n\n  line five  \n \n",
    "\n\n\n\n",
    " \n \n \t \n",
    "end with spaces   ",
    "   start with spaces",
    "a  b   c    d     e",
    "tab\tseparated\t\tvalues",
    "\u00e9 e\u0301 na\u00efve caf\u00e9 \u00dcber stra\u00dfe \u017fo '\u017f",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\u4e2d\u6587\u6587\u672c\u3002\ud55c\uad6d\uc5b4",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea \u2764\ufe0f\U0001f44d\U0001f3fd",
    "\u2014 \u201cquoted\u201d \u2026 \u20ac100",
    SPACES,
    "a" + "b".join(SPACES) + "c",
    "1" + "2".join(SPACES),
    "!" + "?".join(SPACES),
    "zero\u200bwidth\ufeffmark",
    "\u0000\u0001\u007f",
    "a\u0000b",
    "!!!???...---===***",
    "http://example.org/a?b=c&d=%20#e",
    "user@example.org",
    "snake_case camelCase SCREAMING_CASE kebab-case",
    "<|im_start|>user\nHi<|im_end|>\n",
    "<|endoftext|>",
    "a<|im_end|>b <|im_end|> c",
    "<|im_start|",
    "<repo_name><reponame>",
    "x<|im_start|><|im_start|>y",
    "<|IM_START|>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "\u03b1\u03b2\u03b3 \u2211\u222b\u221a \u2192 \u2260 \u221e",
    "\ufffd",
    "\u0f0b\u1f600",
]
CHATS = [
    [("user", "Hi")],
    [("system", "Be brief."), ("user", "What is 2 + 2?")],
    [("user", "One\ntwo "), ("assistant", " Three."), ("user", "")],
    [("system", ""), ("user", "quotes ' \" and {{ braces }}")],
]


def random_strings(count):
    """Mixtures of characters whose classes the pre-tokenizer tells apart."""
    source = random.Random(SEED)
    parts = [
        "a",
        "Zq",
        "the",
        "'s",
        "'ll",
        "'",
        "1",
        "23",
        "\u0664",
        ".",
        "!?",
        "_",
        "\u00e9",
        "\u65e5",
        "\U0001f600",
        "<|im_end|>",
        "<",
        "|",
        *SPACES,
        " ",
        " ",
        "\n",
    ]
    return ["".join(source.choices(parts, k=source.randint(2, 14))) for _ in range(count)]


def golden_tokens(tokenizer):
    def encode(text, parse_special):
        tokenizer.backend_tokenizer.encode_special_tokens = not parse_special
        return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def chat(turns, opens_answer):
        messages = [{"role": role, "content": content} for role, content in turns]
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=opens_answer
        )
        return {"messages": messages, "opens_answer": opens_answer, "text": text}

    return {
        "cases": [
            {"text": text, "special": encode(text, True), "plain": encode(text, False)}
            for text in STRINGS + random_strings(60)
        ],
        "chats": [chat(turns, opens) for turns in CHATS for opens in (True, False)],
    }


@torch.no_grad()
def golden_logits(model, tokens):
    norms = {}
    for layer in NORM_LAYERS:
        model.model.layers[layer].register_forward_hook(
            lambda module, given, out, layer=layer: norms.__setitem__(
                layer, (out[0] if isinstance(out, tuple) else out).reshape(len(tokens), -1)
            )
        )
    logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
    best = logits.topk(2)
    ids = torch.tensor(sorted(random.Random(SEED).sample(range(logits.shape[1]), 16)))
    positions = torch.linspace(0, len(tokens) - 1, 64).long()
    return {
        "tokens": torch.tensor(tokens, dtype=torch.int32),
        "top1": best.indices[:, 0].int(),
        "top1_logit": best.values[:, 0].contiguous(),
        "runner_up_logit": best.values[:, 1].contiguous(),
        "mean": logits.mean(-1),
        "log_sum_exp": logits.logsumexp(-1),
        "sample_ids": ids.int(),
        "sample_logits": logits[:, ids].contiguous(),
        "norm_positions": positions.int(),
        "norm_layers": torch.tensor(NORM_LAYERS, dtype=torch.int32),
        "norms": torch.stack([norms[layer][positions].norm(dim=-1) for layer in NORM_LAYERS], -1),
    }


def main():
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", default=os.path.join(here, "golden_text.txt"))
    parser.add_argument("--out", default=here)
    parser.add_argument("--length", type=int, default=512)
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.model)
    with open(os.path.join(args.out, "golden_tokens.json"), "w", encoding="ascii") as file:
        json.dump(golden_tokens(tokenizer), file, separators=(",", ":"))
        file.write("\n")
    tokenizer.backend_tokenizer.encode_special_tokens = False
    with open(args.text, encoding="utf-8", newline="") as file:
        tokens = tokenizer.encode(file.read(), add_special_tokens=False)[: args.length]
    if len(tokens) < args.length:
        parser.error(f"{args.text} has only {len(tokens)} tokens")
    golden = golden_logits(load_model(args.model), tokens)
    save_file(
        golden,
        os.path.join(args.out, "golden_logits.safetensors"),
        {
            "model": os.path.basename(args.model),
            "made_by": "scripts/make_golden.py",
            "text": os.path.basename(args.text),
        },
    )
    gap = golden["top1_logit"] - golden["runner_up_logit"]
    print(f"{len(tokens)} positions, smallest lead of the best logit {float(gap.min()):.5f}")


if __name__ == "__main__":
    main()
