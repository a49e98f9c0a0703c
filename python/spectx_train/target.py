# SPDX-License-Identifier: Apache-2.0
"""The target: any decoder of transformers, with its attention seen as it is computed."""

import contextlib
import hashlib
import io
import logging
import os

import torch
import transformers
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoTokenizer

from . import UserError

IMPLEMENTATION = "spectx_train"
WINDOW_BLOCK = 1024  # query rows of a sliding-window layer at a time


class WatchedAttention:
    """Full causal attention that shows each layer's rotated q, k and v to `observer`, and reads only
    `selection` [KV heads, rows, length] in the last rows if one is set."""

    def __init__(self):
        self.observer = None
        self.selection = None

    @torch.compiler.disable  # the observer is no part of a compiled layer
    def __call__(self, module, query, key, value, attention_mask, scaling=None, **kwargs):
        for name in ("softcap", "s_aux"):
            if kwargs.get(name) is not None:
                raise UserError(f"a target whose attention has {name} is not supported")
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        window = kwargs.get("sliding_window")
        if window is not None and window < key.shape[2]:
            out = windowed(query, key, value, scale, window)
        else:
            out = scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=scale, enable_gqa=True
            )
            if self.selection is not None:
                rows = self.selection.shape[1]
                sparse = selected(query[:, :, -rows:], key, value, scale, self.selection)
                out = torch.cat([out[:, :, :-rows], sparse], 2)
            if self.observer is not None:
                self.observer(module, query, key, value, scale)
        return out.transpose(1, 2).contiguous(), None


def windowed(query, key, value, scale, window):
    parts = []
    for first in range(0, query.shape[2], WINDOW_BLOCK):
        last = min(first + WINDOW_BLOCK, query.shape[2])
        begin = max(first - window + 1, 0)
        row = torch.arange(first, last, device=query.device)[:, None]
        column = torch.arange(begin, last, device=query.device)
        parts.append(
            scaled_dot_product_attention(
                query[:, :, first:last],
                key[:, :, begin:last],
                value[:, :, begin:last],
                attn_mask=(column <= row) & (column > row - window),
                scale=scale,
                enable_gqa=True,
            )
        )
    return torch.cat(parts, 2)


def selected(query, key, value, scale, selection):
    """Attention of [batch, heads, rows, d] over the rows that `selection` names."""
    mask = selection.repeat_interleave(query.shape[1] // selection.shape[0], 0)
    group = query.shape[1] // key.shape[1]
    scores = query.float() @ key.float().repeat_interleave(group, 1).transpose(2, 3) * scale
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return (weights @ value.float().repeat_interleave(group, 1)).to(query.dtype)


class Target:
    """A frozen model. `name`, `sha256` say which; sizes are its text decoder's."""

    def __init__(self, model, name, sha256, attention):
        self.model, self.name, self.sha256, self.attention = model, name, sha256, attention
        config = model.config.get_text_config()
        self.hidden = config.hidden_size
        self.num_layers = config.num_hidden_layers
        self.heads = config.num_attention_heads
        self.kv_heads = getattr(config, "num_key_value_heads", None) or self.heads
        self.head_dim = getattr(config, "head_dim", None) or self.hidden // self.heads
        self.vocabulary = model.get_input_embeddings().weight.shape[0]
        self.longest = getattr(config, "max_position_embeddings", None) or 1 << 30
        rope = getattr(config, "rope_parameters", None) or {}
        self.rope_theta = float(rope.get("rope_theta") or getattr(config, "rope_theta", 10000.0))
        eps = getattr(config, "rms_norm_eps", None) or 1e-5
        self.rms_norm_eps = float(f"{eps:.6g}")  # a GGUF holds it in float32
        self.device = model.get_input_embeddings().weight.device
        self.decoder_layers = next(
            (
                module
                for module in model.base_model.modules()
                if isinstance(module, torch.nn.ModuleList) and len(module) == self.num_layers
            ),
            None,
        )
        if self.decoder_layers is None:
            raise UserError(f"{name}: no list of {self.num_layers} decoder layers was found")

    @property
    def default_features(self):
        """The residual streams that EAGLE-3 taps, as layers after which they are read."""
        n = self.num_layers
        return tuple(sorted({min(1, n - 2), n // 2 - 1, max(n - 4, 0)}))

    @contextlib.contextmanager
    def compiled(self):
        """Within it the layers run as torch.compile makes them: seconds once, then faster."""
        for layer in self.decoder_layers:
            layer.forward = torch.compile(layer.forward)
        try:
            yield
        finally:
            for layer in self.decoder_layers:
                del layer.forward

    def embed(self, tokens):
        return torch.nn.functional.embedding(tokens, self.model.get_input_embeddings().weight)

    def logits(self, hidden):
        return self.model.get_output_embeddings()(hidden)

    @torch.no_grad()
    def run(self, tokens, features=(), observer=None, selection=None):
        """Forward pass of [batch, length]: (the last hidden state, {layer: residual after it})."""
        kept = {}

        def keep(layer):
            def hook(module, given, out):
                kept[layer] = out[0] if isinstance(out, tuple) else out

            return self.decoder_layers[layer].register_forward_hook(hook)

        with contextlib.ExitStack() as stack:
            for layer in features:
                stack.callback(keep(layer).remove)
            self.attention.observer, self.attention.selection = observer, selection
            stack.callback(setattr, self.attention, "observer", None)
            stack.callback(setattr, self.attention, "selection", None)
            out = self.model.base_model(input_ids=tokens, use_cache=False)
        return out.last_hidden_state, kept


def hash_files(paths):
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def weight_files(path):
    if os.path.isfile(path):
        return [path]
    names = sorted(n for n in os.listdir(path) if n.endswith((".safetensors", ".bin", ".pt")))
    return [os.path.join(path, name) for name in names]


def split_path(path):
    """What transformers wants: (folder, arguments)."""
    if os.path.isdir(path):
        return path, {}
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise UserError(f"{path} is read with the package gguf: pip install gguf") from error
    folder, name = os.path.split(os.path.abspath(path))
    return folder, {"gguf_file": name}


def load_target(path, device, random_weights=False):
    """A folder with config.json, or a GGUF file; with random_weights a folder or a config alone."""
    if not os.path.exists(path):
        raise UserError(f"{path}: no such model")
    quiet()
    attention = WatchedAttention()
    AttentionInterface.register(IMPLEMENTATION, attention)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    wanted = {"dtype": dtype, "attn_implementation": IMPLEMENTATION}
    try:
        if random_weights:
            config = AutoConfig.from_pretrained(path)
            with torch.device(device):
                model = AutoModelForCausalLM.from_config(config, **wanted)
            sha256 = "random weights"
        else:
            folder, more = split_path(path)
            with contextlib.redirect_stderr(io.StringIO()):  # the bars of reading a GGUF
                model = AutoModelForCausalLM.from_pretrained(folder, **more, **wanted)
            sha256 = hash_files(weight_files(path))
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # transformers and its packages raise whatever they like
        text = " ".join(str(error).split())
        if IMPLEMENTATION in text:
            text = "its attention is not behind transformers' attention interface"
        raise UserError(f"{path} cannot be loaded by transformers: {text}") from error
    model = model.to(device).eval().requires_grad_(False)
    name = os.path.basename(os.path.abspath(path))
    return Target(model, name.removesuffix(".gguf"), sha256, attention)


def quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def load_tokenizer(path):
    folder, more = split_path(path)
    quiet()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **more)
    except Exception as error:  # likewise
        text = " ".join(str(error).split())
        raise UserError(f"{path}: its tokenizer cannot be loaded: {text}") from error
    tokenizer.model_max_length = 1 << 40
    if more:
        split_digits(tokenizer, path)
    return tokenizer


def split_digits(tokenizer, path):
    """transformers leaves out what the pre-tokenizer "smollm" of a GGUF does: digits alone."""
    import gguf
    from tokenizers import pre_tokenizers

    field = gguf.GGUFReader(path).fields.get("tokenizer.ggml.pre")
    if field is None or field.contents() != "smollm":
        return
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
