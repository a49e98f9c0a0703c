# SPDX-License-Identifier: Apache-2.0
"""Texts as tokens: read, cut into training sequences, kept as a file."""

import dataclasses
import os
import zipfile

import numpy as np
import torch

from . import UserError
from .head import replace_file


@dataclasses.dataclass
class Corpus:
    """Documents one after the other; document i is tokens[starts[i]:starts[i + 1]]."""

    tokens: np.ndarray
    starts: np.ndarray
    names: list

    def document(self, i):
        return self.tokens[self.starts[i] : self.starts[i + 1]]

    def documents(self):
        return [self.document(i) for i in range(len(self.names))]

    def sample(self, length, count, rng):
        """[count, length] int64: windows that begin anywhere; a window may span documents."""
        first = rng.integers(0, len(self.tokens) - length + 1, count)
        rows = np.stack([self.tokens[i : i + length] for i in first])
        return torch.from_numpy(rows.astype(np.int64))

    def split_tail(self, count):
        """(all but the last `count` tokens, the last `count` as one document)."""
        cut = len(self.tokens) - count
        starts = np.append(self.starts[self.starts < cut], cut)
        head = Corpus(self.tokens[:cut], starts, self.names[: len(starts) - 1])
        tail = Corpus(self.tokens[cut:], np.array([0, count]), ["the end of the text"])
        return head, tail


def join(documents, names, vocabulary):
    sizes = np.array([0] + [len(d) for d in documents], dtype=np.int64)
    dtype = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    tokens = np.concatenate([np.asarray(d, dtype=dtype) for d in documents])
    return Corpus(tokens, np.cumsum(sizes), list(names))


def text_files(paths):
    """The files named, and those in the folders named."""
    found = []
    for path in paths:
        if os.path.isdir(path):
            inside = [os.path.join(at, name) for at, _, names in os.walk(path) for name in names]
            found += sorted(inside)
        elif os.path.exists(path):
            found.append(path)
        else:
            raise UserError(f"{path}: no such text")
    if not found:
        raise UserError(f"no text in {', '.join(paths)}")
    return found


def read_text(path):
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: byte {error.start} ({error.reason})") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def load_corpus(paths, tokenizer, vocabulary):
    """Text files, folders of them, or files of spectx-tokenize; `tokenizer` gives one when needed."""
    documents, names = [], []
    for path in text_files(paths):
        if path.endswith(".npz"):
            kept = load_tokens(path)
            documents += kept.documents()
            names += kept.names
        else:
            documents.append(encode(tokenizer(), [read_text(path)])[0])
            names.append(os.path.basename(path))
    corpus = join(documents, names, vocabulary)
    if len(corpus.tokens) and int(corpus.tokens.max()) >= vocabulary:
        raise UserError(
            f"{paths[0]} holds token {int(corpus.tokens.max())}, "
            f"but the target's vocabulary ends at {vocabulary - 1}: it is for another model"
        )
    return corpus


def encode(tokenizer, texts):
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def save_tokens(path, corpus):
    def write(temporary):
        with open(temporary, "wb") as file:
            np.savez_compressed(
                file, tokens=corpus.tokens, starts=corpus.starts, names=np.array(corpus.names)
            )

    replace_file(path, write)


def load_tokens(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return Corpus(file["tokens"], file["starts"], [str(name) for name in file["names"]])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a file of spectx-tokenize: {error}") from error


def held_out_sequences(corpus, length, count):
    """Up to `count` sequences of `length` + 1 tokens (the last is only predicted), each the start of
    a document."""
    found = [
        (name, torch.from_numpy(document[: length + 1].astype(np.int64)))
        for name, document in zip(corpus.names, corpus.documents())
        if len(document) > length
    ]
    if not found:
        most = max((len(document) for document in corpus.documents()), default=0)
        raise UserError(
            f"no held-out text has {length + 1} tokens (the longest: {most}): "
            "give longer ones to --held-out, or shorten --lengths"
        )
    return found[:count]
