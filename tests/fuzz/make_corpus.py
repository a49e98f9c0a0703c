#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the corpus beside this file: corpus/gguf, corpus/head_config and corpus/safetensors.

good_* must be read, bad_* must be refused; tests/fuzz/replay.cpp checks that. Files named found_*
come from the fuzzers and are left alone. Needs the standard library only.
"""
import json
import pathlib
import random
import struct

ROOT = pathlib.Path(__file__).parent / "corpus"
U64_MAX = 2**64 - 1

# GGUF: value types, and tensor types as (number, elements, bytes) of a block.
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B",
        U64: "Q", I64: "q", F64: "d"}
BLOCKS = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20),
          "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144),
          "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "BF16": (30, 1, 2), "Q2_K": (10, 256, 84)}


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind, value):
    return text(value) if kind == STRING else struct.pack("<" + PACK[kind], value)


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + scalar(kind, value)


def array(key, kind, values, count=None):
    body = b"".join(scalar(kind, v) for v in values)
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(values) if count is None else count) + body


def tensor(name, ne, kind, offset, rank=None):
    number = BLOCKS[kind][0] if isinstance(kind, str) else kind
    shape = struct.pack("<I", len(ne) if rank is None else rank) + struct.pack(f"<{len(ne)}Q", *ne)
    return text(name) + shape + struct.pack("<IQ", number, offset)


def gguf(values=(), tensors=(), data=b"", alignment=32, version=3, magic=b"GGUF", counts=None):
    num_tensors, num_values = counts or (len(tensors), len(values))
    head = magic + struct.pack("<IQQ", version, num_tensors, num_values)
    head += b"".join(values) + b"".join(tensors)
    if data:
        head += b"\0" * (-len(head) % alignment) + data
    return head


def every_tensor_type():
    bits = random.Random(1)
    tensors, data = [], b""
    for kind, (_, elements, size) in BLOCKS.items():
        cols = max(elements, 4)
        data += b"\0" * (-len(data) % 32)
        tensors.append(tensor(f"blk.0.{kind}", [cols, 2], kind, len(data)))
        data += bits.randbytes(2 * cols // elements * size)
    return gguf([pair("general.architecture", STRING, "llama")], tensors, data)


def gguf_files():
    one = [tensor("a", [8], "F32", 0)]
    data = bytes(32)
    every_value = [pair(f"v{k}", k, {STRING: "text", BOOL: 1}.get(k, 7)) for k in (*PACK, STRING)]
    every_value += [array(f"a{k}", k, [{STRING: "text", BOOL: 0}.get(k, 7)] * 3)
                    for k in (*PACK, STRING)]
    good = {
        "empty": gguf(),
        "values": gguf(every_value),
        "tensors": every_tensor_type(),
        "version_2": gguf([pair("k", U32, 1)], one, data, version=2),
        "alignment_64": gguf([pair("general.alignment", U32, 64)], one, data, alignment=64),
        "dimension_0": gguf(tensors=[tensor("a", [0, 3], "Q4_K", 0), tensor("b", [4, 0], "F32", 0)]),
        "columns_without_rows": gguf(tensors=[tensor("a", [2**61, 0], "F16", 0)]),
        "rank_4": gguf(tensors=[tensor("a", [2, 2, 2, 1], "F32", 0)], data=data),
        "odd_names": gguf([pair(b"\xff\x1b[31m", STRING, b"\x00\xfe"), pair("", U8, 0)],
                          [tensor("\u202etensor\n", [8], "F32", 0)], data),
    }
    nested = text("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1) + struct.pack("<IQ", U8, 1) + b"\0"
    deep = text("k") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 2000
    bad = {
        "no_bytes": b"",
        "magic": gguf(magic=b"GGML"),
        "version_1": gguf(version=1),
        "version_4": gguf(version=4),
        "big_endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "header_cut": gguf()[:20],
        "tensor_count": gguf(counts=(U64_MAX, 0)),
        "value_count": gguf(counts=(0, 2**40), data=bytes(64)),
        "value_missing": gguf([pair("k", STRING, "long enough")], counts=(0, 2)),
        "key_length": gguf(counts=(0, 1)) + struct.pack("<Q", U64_MAX) + bytes(32),
        "key_too_long": gguf([pair("k" * 65536, U8, 0)]),
        "string_length": gguf([text("k") + struct.pack("<IQ", STRING, 2**63)]),
        "value_type": gguf([text("k") + struct.pack("<I", 13) + bytes(8)]),
        "element_type": gguf([text("k") + struct.pack("<IIQ", ARRAY, 99, 0)]),
        "array_count": gguf([array("k", U64, [1], 2**61 + 1)]),
        "array_cut": gguf([array("k", U32, [1, 2, 3], 4)]),
        "string_array_count": gguf([array("k", STRING, [""] * 4, U64_MAX)]),
        "nested_array": gguf([nested]),
        "deep_arrays": gguf([deep]),
        "boolean": gguf([pair("k", BOOL, 2)]),
        "key_twice": gguf([pair("k", U8, 1), pair("k", U8, 2)]),
        "alignment_0": gguf([pair("general.alignment", U32, 0)]),
        "alignment_3": gguf([pair("general.alignment", U32, 3)]),
        "alignment_type": gguf([pair("general.alignment", STRING, "32")]),
        "alignment_2g": gguf([pair("general.alignment", U32, 2**31)], one, data),
        "rank_0": gguf(tensors=[tensor("a", [], "F32", 0)], data=data),
        "rank_5": gguf(tensors=[tensor("a", [1] * 5, "F32", 0)], data=data),
        "rank_lies": gguf(tensors=[tensor("a", [8], "F32", 0, rank=2**32 - 1)], data=data),
        "dimension_64_bit": gguf(tensors=[tensor("a", [2**63], "F32", 0)], data=data),
        "product_wraps": gguf(tensors=[tensor("a", [2**32, 2**32], "F32", 0)], data=data),
        "bytes_wrap": gguf(tensors=[tensor("a", [2**62], "F32", 0)], data=data),
        "hidden_overflow": gguf(tensors=[tensor("a", [0, 2**40, 2**40], "F32", 0)], data=data),
        "partial_block": gguf(tensors=[tensor("a", [33], "Q4_0", 0)], data=data),
        "tensor_type": gguf(tensors=[tensor("a", [8], 4, 0)], data=data),
        "tensor_type_64k": gguf(tensors=[tensor("a", [8], 65536, 0)], data=data),
        "tensor_cut": gguf(tensors=one, data=bytes(31)),
        "tensor_twice": gguf(tensors=[*one, tensor("a", [8], "F32", 32)], data=bytes(64)),
        "offset_unaligned": gguf(tensors=[tensor("a", [1], "F32", 4)], data=data),
        "offset_far": gguf(tensors=[tensor("a", [1], "F32", 2**40)], data=data),
        "offset_wraps": gguf(tensors=[tensor("a", [8], "F32", U64_MAX - 31)], data=data),
        "overlap": gguf(tensors=[tensor("a", [16], "F32", 0), tensor("b", [8], "F32", 32)],
                        data=bytes(64)),
        "name_cut": gguf(tensors=[text("abc")[:9]], data=b""),
    }
    return good, bad


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors(header, data=b"", size=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw + data


def index(content):
    return json.dumps(content).encode()


def every_dtype():
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, bits in {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8,
                       "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
                       "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64,
                       "I64": 64, "U64": 64}.items():
        header[name] = entry(name, [2, 4], at, at + bits)
        at += bits
    return safetensors(header, random.Random(2).randbytes(at))


def safetensors_files():
    f32 = entry("F32", [2], 0, 8)
    data = bytes(8)
    good = {
        "empty": safetensors({}),
        "padded": safetensors(b"{}" + b" " * 6),
        "dtypes": every_dtype(),
        "scalar": safetensors({"a": entry("F64", [], 0, 8)}, data),
        "dimension_0": safetensors({"a": entry("F32", [0, 3], 0, 0), "b": f32}, data),
        "columns_without_rows": safetensors({"a": entry("F16", [0, 2**59], 0, 0)}),
        "any_order": safetensors({"b": entry("U8", [4], 4, 8), "a": entry("U8", [4], 0, 4)}, data),
        "odd_names": safetensors({"\u202e\x1b\x00": f32, "__metadata__": {"\x07": "\u0000"}}, data),
    }
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    good["index"] = index({"metadata": {"total_size": 16, "ratio": 0.5, "x": None, "y": True,
                                        "z": -1, "s": "text"}, "weight_map": shards})
    bad_indices = {
        "index_empty": b"{}",
        "index_array": b"[]",
        "index_cut": index({"weight_map": shards})[:-2],
        "index_deep": b'{"weight_map":' * 2000,
        "index_map_twice": b'{"weight_map":{},"weight_map":{}}',
        "index_metadata_object": index({"metadata": {"a": {}}, "weight_map": shards}),
        "index_unknown_field": index({"weights": shards}),
        "index_file_number": index({"weight_map": {"a": 1}}),
        "index_file_outside": index({"weight_map": {"a": "../model.safetensors"}}),
        "index_file_nul": index({"weight_map": {"a": "model\0.safetensors"}}),
        "index_tensor_twice": b'{"weight_map":{"a":"f","a":"f"}}',
    }
    bad = bad_indices | {
        "no_bytes": b"",
        "length_cut": b"\2\0\0",
        "length_far": safetensors({}, size=2**40),
        "length_max": safetensors({}, size=U64_MAX),
        "length_beyond_file": safetensors({}, size=3),
        "length_0": safetensors(b""),
        "not_an_object": safetensors([]),
        "leading_space": safetensors(b" {}"),
        "cut_json": safetensors(b'{"a":{"dtype":"F32"'),
        "two_objects": safetensors(b"{}{}"),
        "not_utf8": safetensors(b'{"\xff\xfe":{}}'),
        "deep_arrays": safetensors(b'{"a":' + b"[" * 5000),
        "deep_objects": safetensors(b'{"a":' * 2000),
        "deep_shape": safetensors(b'{"a":{"dtype":"U8","shape":[[[[1]]]],"data_offsets":[0,1]}}'),
        "entry_number": safetensors({"a": 1}),
        "entry_null": safetensors({"a": None}),
        "entry_array": safetensors({"a": [f32]}, data),
        "field_missing": safetensors({"a": {"dtype": "F32", "shape": [2]}}, data),
        "field_unknown": safetensors({"a": {**f32, "strides": [1]}}, data),
        "field_twice": safetensors(b'{"a":{"shape":[2],"shape":[2],"dtype":"F32","data_offsets":[0,8]}}',
                                   data),
        "name_twice": safetensors(b'{"a":%s,"a":%s}' % ((json.dumps(f32).encode(),) * 2), data),
        "metadata_twice": safetensors(b'{"__metadata__":{},"__metadata__":{}}'),
        "metadata_key_twice": safetensors(b'{"__metadata__":{"k":"1","k":"2"}}'),
        "metadata_number": safetensors({"__metadata__": {"k": 1}}),
        "metadata_object": safetensors({"__metadata__": {"k": {}}}),
        "metadata_string": safetensors({"__metadata__": "k"}),
        "dtype_unknown": safetensors({"a": entry("F128", [2], 0, 8)}, data),
        "dtype_number": safetensors({"a": entry(32, [2], 0, 8)}, data),
        "shape_negative": safetensors({"a": entry("F32", [-2], 0, 8)}, data),
        "shape_fraction": safetensors({"a": entry("F32", [2.0], 0, 8)}, data),
        "shape_string": safetensors({"a": entry("F32", ["2"], 0, 8)}, data),
        "shape_64_bit": safetensors({"a": entry("F32", [2**63], 0, 8)}, data),
        "shape_65_bit": safetensors({"a": entry("F32", [2**64 + 2], 0, 8)}, data),
        "shape_boolean": safetensors({"a": entry("F32", [True], 0, 8)}, data),
        "product_wraps": safetensors({"a": entry("F32", [2**32, 2**32, 2], 0, 8)}, data),
        "bits_wrap": safetensors({"a": entry("F32", [2**59 + 2], 0, 8)}, data),
        "hidden_overflow": safetensors({"a": entry("F32", [2**40, 2**40, 0], 0, 0), "b": f32}, data),
        "half_a_byte": safetensors({"a": entry("F4", [3], 0, 2)}, bytes(2)),
        "offsets_one": safetensors({"a": {**f32, "data_offsets": [8]}}, data),
        "offsets_three": safetensors({"a": {**f32, "data_offsets": [0, 8, 8]}}, data),
        "offsets_swapped": safetensors({"a": entry("F32", [2], 8, 0)}, data),
        "offsets_far": safetensors({"a": entry("F32", [2], U64_MAX - 8, U64_MAX)}, data),
        "size_differs": safetensors({"a": entry("F32", [3], 0, 8)}, data),
        "data_cut": safetensors({"a": f32}, bytes(7)),
        "data_left_over": safetensors({"a": f32}, bytes(9)),
        "hole": safetensors({"a": entry("U8", [2], 0, 2), "b": entry("U8", [4], 4, 8)}, data),
        "hole_at_start": safetensors({"a": entry("U8", [4], 4, 8)}, data),
        "overlap": safetensors({"a": entry("U8", [6], 0, 6), "b": entry("U8", [4], 4, 8)}, data),
    }
    return good, bad


def head_configs():
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16, "head_dim": 8}
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 8192}
    yarn = {"type": "yarn", "factor": 4, "mscale": 1, "mscale_all_dim": 0.5,
            "original_max_position_embeddings": 4096}
    nested = {"speculators_model_type": "eagle3", "norm_before_fc": True,
              "eagle_aux_hidden_state_layer_ids": None}

    def config(**more):
        return json.dumps({**sizes, **more}).encode()

    good = {
        "eagle": config(architectures=["LlamaForCausalLM"], rms_norm_eps=1e-5),
        "specforge": config(architectures=["LlamaForCausalLMEagle3"], rope_theta=5e5,
                            rope_scaling=llama3, fc_norm=True, eagle_config={
                                "eagle_aux_hidden_state_layer_ids": [1, 17, 33],
                                "use_aux_hidden_state": True}),
        "angelslim": config(architectures=["Eagle3LlamaForCausalLM"], rope_theta=1000000),
        "deepspec": config(architectures=["Qwen3Eagle3Model"], target_layer_ids=[1, 9, 17, 25, 33]),
        "speculators": json.dumps({**nested, "transformer_layer_config": {
            **sizes, "rope_parameters": {**yarn, "rope_theta": 1e6}}}).encode(),
        "extremes": config(rope_theta=1e29, vocab_size=2**31, rms_norm_eps=1e-45),
        "unknown_fields": config(more={"deep": [[[[{}]]]]}, architectures=None),
    }
    bad = {
        "empty": b"", "cut": config()[:-1], "array": b"[]", "number": b"7", "not_utf8": b'{"\xff": 1}',
        "deep": b"[" * 100000, "deep_object": b'{"a":' * 50000, "left_over": config() + b"}",
        "heads_missing": b"{}", "heads_zero": config(num_attention_heads=0),
        "heads_negative": config(num_attention_heads=-4),
        "heads_64_bit": config(num_attention_heads=2**64), "heads_text": config(num_attention_heads="4"),
        "theta_infinite": config()[:-1] + b', "rope_theta": 1e999}',
        "theta_one": config(rope_theta=1), "theta_text": config(rope_theta="1e6"),
        "layers_empty": config(target_layer_ids=[]), "layers_equal": config(target_layer_ids=[1, 1]),
        "layers_far": config(target_layer_ids=[1, 2**40]), "layers_text": config(target_layer_ids="1"),
        "scaling_text": config(rope_scaling="yarn"), "scaling_type": config(rope_scaling={"type": 1}),
        "scaling_unknown": config(rope_scaling={"type": "ntk\x1b[2J"}),
        "yarn_bare": config(rope_scaling={"type": "yarn"}),
        "yarn_factor": config(rope_scaling={**yarn, "factor": 0.5}),
        "llama3_frequencies": config(rope_scaling={**llama3, "low_freq_factor": 4.0}),
        "latent": config(architectures=["DeepseekV3ForCausalLMEagle3"]),
        "other_speculator": json.dumps({**nested, "speculators_model_type": "dflash"}).encode(),
        "speculators_flat": json.dumps({**nested, **sizes}).encode(),
        "last_state": config(eagle_config={"use_aux_hidden_state": False}),
    }
    return good, bad


def main():
    formats = {"gguf": gguf_files(), "head_config": head_configs(), "safetensors": safetensors_files()}
    for kind, (good, bad) in formats.items():
        folder = ROOT / kind
        folder.mkdir(parents=True, exist_ok=True)
        for prefix, files in (("good", good), ("bad", bad)):
            for name, content in files.items():
                (folder / f"{prefix}_{name}").write_bytes(content)


main()
