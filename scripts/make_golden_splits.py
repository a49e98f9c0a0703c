#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/golden_splits.json: how the package tokenizers splits difficult strings.

    make_golden_splits.py [--out tests/data]

The regular expressions are those of the models' published tokenizer.json files, and for "default"
those that llama.cpp runs, in its order. A split is given as the bytes of its words.
"""

import argparse
import json
import os

from tokenizers import Regex, pre_tokenizers

from make_golden import STRINGS, random_strings

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "gpt-2": [GPT2],
    "llama-bpe": [QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")],
    "qwen2": [QWEN2],
    "smollm": [r"\p{N}", GPT2],
}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(here, "..", "tests", "data"))
    args = parser.parse_args()
    strings = [text for text in STRINGS + random_strings(60) if text]
    golden = {"strings": strings, "splits": {}}
    for name, patterns in PATTERNS.items():
        split = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
        )
        golden["splits"][name] = [
            [len(word.encode()) for word, _ in split.pre_tokenize_str(text)] for text in strings
        ]
    with open(os.path.join(args.out, "golden_splits.json"), "w", encoding="ascii") as file:
        json.dump(golden, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
