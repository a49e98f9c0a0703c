# SPDX-License-Identifier: Apache-2.0
"""spectx-tokenize: texts as one file of tokens, for a machine that should not tokenise them again."""

import argparse
import sys

from . import UserError
from .corpus import encode, join, read_text, save_tokens, text_files
from .target import load_tokenizer

BATCH = 64  # texts handed to the tokenizer at a time, which then uses every core


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="spectx-tokenize", description=__doc__)
    parser.add_argument("--target", required=True, help="folder of transformers, or GGUF file")
    parser.add_argument("--text", required=True, nargs="+", help="files, or folders of files")
    parser.add_argument("--out", required=True, metavar="FILE.npz")
    args = parser.parse_args(arguments)
    try:
        if not args.out.endswith(".npz"):
            raise UserError("--out must end in .npz")
        tokenizer = load_tokenizer(args.target)
        paths = text_files(args.text)
        documents = []
        for i in range(0, len(paths), BATCH):
            documents += encode(tokenizer, [read_text(path) for path in paths[i : i + BATCH]])
        names = [path.rsplit("/", 1)[-1].removesuffix(".txt") for path in paths]
        corpus = join(documents, names, len(tokenizer))
        save_tokens(args.out, corpus)
    except UserError as error:
        print(f"spectx-tokenize: error: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {len(names)} documents, {len(corpus.tokens)} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
