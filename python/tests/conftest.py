# SPDX-License-Identifier: Apache-2.0
"""A tiny model with random weights, and texts for it."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from spectx_train.corpus import join, save_tokens
from spectx_train.target import load_target

VOCABULARY = 256


def save_model(folder, seed=0, **changes):
    torch.manual_seed(seed)
    sizes = dict(
        hidden_size=48, intermediate_size=64, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=3, head_dim=8, vocab_size=VOCABULARY, max_position_embeddings=512,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(LlamaConfig(**(sizes | changes)))
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def target(model_folder):
    return load_target(model_folder, torch.device("cpu"))


@pytest.fixture(scope="session")
def tokens_file(tmp_path_factory):
    """Short phrases over and over: something to attend to."""
    rng = np.random.default_rng(0)
    phrases = rng.integers(0, VOCABULARY, (8, 12))
    text = phrases[rng.integers(0, 8, 400)].reshape(-1)
    path = str(tmp_path_factory.mktemp("text") / "tokens.npz")
    save_tokens(path, join([text], ["phrases"], VOCABULARY))
    return path
