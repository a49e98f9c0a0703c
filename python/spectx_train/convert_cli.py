# SPDX-License-Identifier: Apache-2.0
"""spectx-convert-head: an EAGLE-3 draft head as one safetensors file that spectx loads.

Takes the query and key side of a checkpoint: a folder with config.json and pytorch_model.bin,
model.safetensors or a sharded set of either, or one .bin file beside its config.json. Weights keep
their type. The whole config.json goes along, so that spectx reads the head as it would the folder.
"""

import argparse
import json
import os
import pickle
import re
import struct
import sys

import torch
from safetensors import SafetensorError, safe_open

from . import UserError
from .head import replace_file
from .options import integers, positive

MOST_CONFIG_BYTES = 1 << 20
BLOCK_BYTES = 1 << 24
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
LAYER = r"(model\.)?(midlayer|layers\.0)\."
WANTED = re.compile(
    rf"((model\.)?(fc\.(weight|bias)|input_norm\.weight|fc_norm\.\d+\.weight|embed_tokens\.weight)"
    rf"|{LAYER}(input_layernorm\.weight|hidden_norm\.weight"
    rf"|self_attn\.([qk]_proj\.(weight|bias)|[qk]_norm\.weight)))"
)
NEEDED = (r"(model\.)?fc\.weight", LAYER + r"self_attn\.q_proj\.weight",
          LAYER + r"self_attn\.k_proj\.weight", LAYER + r"input_layernorm\.weight",
          LAYER + r"hidden_norm\.weight")
FILES = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json",
         "pytorch_model.bin")


def read_config(path):
    """The object of a config.json."""
    try:
        if os.path.getsize(path) > MOST_CONFIG_BYTES:
            raise UserError(f"{path} is too large for a config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a JSON object")
    return config


def tensor_files(source):
    """(files with tensors, path of config.json)."""
    if not os.path.exists(source):
        raise UserError(f"{source}: no such file or folder")
    if not os.path.isdir(source):
        return [source], os.path.join(os.path.dirname(source), "config.json")
    for name in FILES:
        path = os.path.join(source, name)
        if not os.path.exists(path):
            continue
        paths = shards(path) if name.endswith(".json") else [path]
        return paths, os.path.join(source, "config.json")
    raise UserError(f"{source} has neither model.safetensors nor pytorch_model.bin")


def shards(index):
    names = read_config(index).get("weight_map")
    if not isinstance(names, dict) or not all(
        isinstance(n, str) and n == os.path.basename(n) and n not in ("", ".", "..")
        for n in names.values()
    ):
        raise UserError(f"{index}: weight_map must name files beside it")
    return [os.path.join(os.path.dirname(index), name) for name in sorted(set(names.values()))]


def load_pickle(path):
    """The tensors of a .bin file; nothing else may be in it, and none of it is run."""
    def load(mmap):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)

    try:
        try:
            tensors = load(True)
        except RuntimeError:  # of a PyTorch before 1.6, which cannot be mapped
            tensors = load(False)
    except pickle.UnpicklingError as error:  # whose text tells how to run it all the same
        call = re.search(r"GLOBAL (\S+)", str(error))
        reason = f": it calls {call[1]}" if call else ""
        raise UserError(f"{path} is refused: it holds more than tensors{reason}") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"{path} cannot be read: {reason}") from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(t, torch.Tensor) for name, t in tensors.items()
    ):
        raise UserError(f"{path} is refused: it must be a dictionary of tensors")
    return tensors


def wanted_tensors(paths):
    """{name: function that reads it}, of those that a retrieval head has."""
    found = {}
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f"{path} is missing")
        if path.endswith(".safetensors"):
            try:
                file = safe_open(path, "pt")
            except (OSError, SafetensorError) as error:
                raise UserError(f"{path} cannot be read: {error}") from error
            found.update({n: (lambda f=file, n=n: f.get_tensor(n)) for n in file.keys()})
        else:
            found.update({n: (lambda t=t: t) for n, t in load_pickle(path).items()})
    found = {name: read for name, read in found.items() if WANTED.fullmatch(name)}
    missing = [p for p in NEEDED if not any(re.fullmatch(p, name) for name in found)]
    if missing:
        names = ", ".join(p.replace(LAYER, "midlayer.").replace("(model\\.)?", "").replace("\\", "")
                          for p in missing)
        raise UserError(f"{paths[0]} is no EAGLE-3 head: {names} missing")
    return found


def drop_embeddings(tensors, config):
    """The target's serve a head of its width; a file's may even be random."""
    width = next(read().shape[0] for name, read in tensors.items() if name.endswith("fc.weight"))
    if config.get("target_hidden_size") in (None, width):
        tensors = {n: read for n, read in tensors.items() if not n.endswith("embed_tokens.weight")}
    return tensors


def write_safetensors(path, tensors, metadata):
    """One tensor in memory at a time; `path` is never half-written."""
    header, end = {"__metadata__": metadata}, 0
    for name, read in tensors.items():
        tensor = read()
        if tensor.dtype not in DTYPES:
            raise UserError(f"tensor {name} is of type {tensor.dtype}: only float32, float16 and "
                            "bfloat16 can be converted")
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def write(temporary):
        with open(temporary, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for read in tensors.values():
                for block in read().detach().flatten().split(BLOCK_BYTES // 4):
                    file.write(block.contiguous().view(torch.uint8).numpy().tobytes())

    replace_file(path, write)
    return end


def convert(source, out, rope_theta=None, feature_layers=None):
    """Gives (number of tensors, bytes)."""
    if not out.endswith(".safetensors"):
        raise UserError("the file to write must end in .safetensors")
    paths, config_path = tensor_files(source)
    if os.path.realpath(out) in map(os.path.realpath, paths):  # an output keeps links
        raise UserError(f"{out} would be written over what it is made of")
    config = read_config(config_path)
    metadata = {"format": "pt", "config": json.dumps(config)}
    if rope_theta is not None:
        metadata["rope_theta"] = repr(rope_theta)
    if feature_layers is not None:
        metadata["feature_layers"] = json.dumps(feature_layers)
    tensors = drop_embeddings(wanted_tensors(paths), config)
    return len(tensors), write_safetensors(out, tensors, metadata)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="spectx-convert-head", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="folder of the head, or its .bin or .safetensors file")
    parser.add_argument("out", metavar="OUT.safetensors")
    parser.add_argument("--rope-theta", type=positive(float), metavar="T",
                        help="what the head was trained with, where config.json says otherwise")
    parser.add_argument("--feature-layers", type=integers, metavar="N,...",
                        help="layers of the target, from 0, whose outputs the head was trained on")
    args = parser.parse_args(arguments)
    try:
        count, size = convert(args.source, args.out, args.rope_theta, args.feature_layers)
    except UserError as error:
        print(f"spectx-convert-head: error: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {count} tensors, {size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
