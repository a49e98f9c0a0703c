#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes quantized.gguf beside this file: random blocks of every type that the library decodes, and
beside each tensor NAME what the Python package `gguf` decodes it to, NAME.expected in F32.

Needs the PyPI packages gguf (0.19 made the committed file) and numpy.
"""
import pathlib

import gguf
import numpy as np

TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
# Byte offsets of the halves in a block: random bits there could be infinities.
HALVES = {"F16": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
          "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
ROWS, COLS = 2, 256

random = np.random.default_rng(3)
writer = gguf.GGUFWriter(pathlib.Path(__file__).with_name("quantized.gguf"), "golden")
for name in TYPES:
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    values = random.standard_normal((ROWS, COLS)).astype(np.float32)
    if name == "F32":
        blocks = values.view(np.uint8)
    elif name == "BF16":
        blocks = np.ascontiguousarray(values.view(np.uint16)[:, 1::2]).view(np.uint8)
    else:
        blocks = random.integers(0, 256, (ROWS * COLS // elements, size), dtype=np.uint8)
        for at in HALVES[name]:
            halves = (random.standard_normal(len(blocks)) / 64).astype(np.float16)
            blocks[:, at:at + 2] = halves.reshape(-1, 1).view(np.uint8)
        blocks = blocks.reshape(ROWS, -1)
    expected = gguf.quants.dequantize(blocks, kind).astype(np.float32).reshape(ROWS, COLS)
    writer.add_tensor(name, blocks, raw_dtype=kind)
    writer.add_tensor(name + ".expected", expected)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
