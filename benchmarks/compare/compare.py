#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Decode steps of what one would run instead of spectx: transformers and FlashInfer.

Every figure is of one whole step of a decoder of the given shape with random weights; caches are
filled with random values. Figures that are in the output file already are not measured again.
--runs measures the step at eight lengths of a whole run, with the batch that fits at its end, and
integrates them; a prompt's forward pass is measured once and counted for every request.
"""
import argparse
import gc
import json
import os
import statistics
import time

import torch
import torch.nn.functional as F

SHAPES = {  # layers, hidden, feed-forward, query heads, KV heads, head dim, vocabulary, tied
    "llama-3.1-8b": (32, 4096, 14336, 32, 8, 128, 128256, False),
    "mistral-7b": (32, 4096, 14336, 32, 8, 128, 32768, False),
    "llama-3.2-1b": (16, 2048, 8192, 32, 8, 64, 128256, True),
    "qwen3-8b": (36, 4096, 12288, 32, 8, 128, 151936, False),
    "tiny": (2, 256, 512, 4, 2, 64, 1024, False),
}
DTYPE = torch.bfloat16


class Shape:
    def __init__(self, name):
        (self.layers, self.hidden, self.feed_forward, self.heads, self.kv_heads, self.dim,
         self.vocabulary, self.tied) = SHAPES[name]
        self.is_qwen = name.startswith("qwen3")
        self.row_bytes = 2 * 2 * self.kv_heads * self.dim * self.layers  # of one token
        per_layer = self.hidden * self.dim * (2 * self.heads + 2 * self.kv_heads)
        per_layer += 3 * self.hidden * self.feed_forward
        tables = (1 if self.tied else 2) * self.vocabulary * self.hidden
        self.weight_bytes = 2 * (self.layers * per_layer + tables)


def timed(step, repeats, steps):
    """Milliseconds of a step, one figure a repeat."""
    figures = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(steps):
            step()
        end.record()
        end.synchronize()
        figures.append(begin.elapsed_time(end) / steps)
    return figures


def random(*shape):
    return torch.empty(*shape, dtype=DTYPE, device="cuda").normal_(0, 0.02)


class Decoder:
    """The linear layers and norms; RoPE, norms of q and k and the writing of the new row are left
    out, in the baseline's favour. The step is one CUDA graph."""

    def __init__(self, s):
        self.s = s
        qkv = (s.heads + 2 * s.kv_heads) * s.dim
        self.embeddings = random(s.vocabulary, s.hidden)
        self.head = self.embeddings if s.tied else random(s.vocabulary, s.hidden)
        self.norm = torch.ones(s.hidden, dtype=DTYPE, device="cuda")
        self.layers = [(random(qkv, s.hidden), random(s.hidden, s.heads * s.dim),
                        random(2 * s.feed_forward, s.hidden), random(s.hidden, s.feed_forward))
                       for _ in range(s.layers)]

    def step(self, tokens, attend):
        s = self.s
        x = self.embeddings[tokens]
        for layer, (qkv, out, gate_up, down) in enumerate(self.layers):
            h = F.linear(F.rms_norm(x, (s.hidden,), self.norm), qkv)
            q = h[:, :s.heads * s.dim].reshape(-1, s.heads, s.dim)
            x = torch.addmm(x, attend(layer, q).view(-1, s.heads * s.dim), out.t())
            gate, up = F.linear(F.rms_norm(x, (s.hidden,), self.norm), gate_up).chunk(2, dim=1)
            x = torch.addmm(x, F.silu(gate) * up, down.t())
        logits = F.linear(F.rms_norm(x, (s.hidden,), self.norm), self.head)
        tokens.copy_(logits.argmax(dim=1))

    def prefill(self, count):
        """The forward pass of one prompt, logits of its last token."""
        s = self.s

        def attend(layer, h):
            q, k, v = (x.transpose(0, 1)[None] for x in h.view(
                count, s.heads + 2 * s.kv_heads, s.dim).split([s.heads, s.kv_heads, s.kv_heads], 1))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return out[0].transpose(0, 1).reshape(count, s.heads * s.dim)

        x = self.embeddings[torch.zeros(count, dtype=torch.long, device="cuda")]
        for layer, (qkv, out, gate_up, down) in enumerate(self.layers):
            x = torch.addmm(x, attend(layer, F.linear(F.rms_norm(x, (s.hidden,), self.norm), qkv)),
                            out.t())
            gate, up = F.linear(F.rms_norm(x, (s.hidden,), self.norm), gate_up).chunk(2, dim=1)
            x = torch.addmm(x, F.silu(gate) * up, down.t())
        F.linear(F.rms_norm(x[-1:], (s.hidden,), self.norm), self.head)

    def graph(self, requests, attend):
        tokens = torch.zeros(requests, dtype=torch.long, device="cuda")
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(2):
                self.step(tokens, attend)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(tokens, attend)
        return graph


def flashinfer_step(decoder, context, requests, kv_dtype=DTYPE, repeats=3, steps=8):
    import flashinfer
    s = decoder.s
    page = 16
    pages = (context + page - 1) // page
    ints = lambda values: torch.tensor(values, dtype=torch.int32, device="cuda")
    indptr = ints([i * pages for i in range(requests + 1)])
    indices = torch.randperm(requests * pages, device="cuda").to(torch.int32)
    last = ints([context - (pages - 1) * page] * requests)
    cache = [random(requests * pages, 2, page, s.kv_heads, s.dim).to(kv_dtype)
             for _ in range(s.layers)]
    workspace = torch.zeros(256 << 20, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace, "NHD", use_cuda_graph=True,
        paged_kv_indptr_buffer=indptr.clone(), paged_kv_indices_buffer=indices.clone(),
        paged_kv_last_page_len_buffer=last.clone())
    wrapper.plan(indptr, indices, last, s.heads, s.kv_heads, s.dim, page, q_data_type=DTYPE,
                 kv_data_type=kv_dtype)
    graph = decoder.graph(requests, lambda layer, q: wrapper.run(q, cache[layer]))
    graph.replay()
    return timed(graph.replay, repeats, steps)


class HostCache:
    """Dense attention over a cache of which the last layers are in pinned host memory: a copy
    stream brings them to two buffers in turn, from the step's begin on."""

    def __init__(self, s, context, requests, resident):
        shape = (2, requests, s.kv_heads, context, s.dim)
        self.layers, self.resident = s.layers, resident
        self.rows = [random(*shape) for _ in range(resident)]
        self.buffers = [random(*shape) for _ in range(2)]
        for _ in range(resident, s.layers):
            self.rows.append(torch.empty(*shape, dtype=DTYPE, pin_memory=True))
            self.rows[-1].copy_(self.buffers[0])
        self.copies = torch.cuda.Stream()
        self.ready = [torch.cuda.Event() for _ in range(s.layers)]

    def fetch(self, layer):
        if layer >= self.layers:
            return
        with torch.cuda.stream(self.copies):
            self.buffers[layer % 2].copy_(self.rows[layer], non_blocking=True)
        self.ready[layer].record(self.copies)

    def attend(self, layer, q):
        now = torch.cuda.current_stream()
        if layer == 0:
            self.copies.wait_stream(now)
            self.fetch(self.resident)
            self.fetch(self.resident + 1)
        is_fetched = layer >= self.resident
        if is_fetched:
            now.wait_event(self.ready[layer])
        k, v = self.buffers[layer % 2] if is_fetched else self.rows[layer]
        out = F.scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=True)
        if is_fetched:
            self.copies.wait_stream(now)  # then its buffer is free
            self.fetch(layer + 2)
        if layer + 1 == self.layers:
            now.wait_stream(self.copies)
        return out[:, :, 0].contiguous()


def offloaded_graph_step(decoder, context, requests, cap):
    """The step, and how many layers stay on the device: as many as fit beside two buffers."""
    s = decoder.s
    layer_bytes = s.row_bytes // s.layers * context * requests
    room = cap - torch.cuda.memory_reserved() - (192 << 20)
    for resident in range(min(s.layers, max(0, int(room // layer_bytes) - 2)), -1, -1):
        try:
            cache = HostCache(s, context, requests, resident)
            graph = decoder.graph(requests, cache.attend)
            graph.replay()
            return timed(graph.replay, 3, 4), resident
        except torch.OutOfMemoryError:
            cache = graph = None
        free()  # outside: the error holds on to what is to be freed
    raise torch.OutOfMemoryError("two buffers do not fit")


def linears_step(decoder, requests):
    graph = decoder.graph(requests, lambda layer, q: q)
    graph.replay()
    return timed(graph.replay, 3, 16)


def transformers_model(s, attention):
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
    config_class, model_class = ((Qwen3Config, Qwen3ForCausalLM) if s.is_qwen else
                                 (LlamaConfig, LlamaForCausalLM))
    config = config_class(
        num_hidden_layers=s.layers, hidden_size=s.hidden, intermediate_size=s.feed_forward,
        num_attention_heads=s.heads, num_key_value_heads=s.kv_heads, head_dim=s.dim,
        vocab_size=s.vocabulary, tie_word_embeddings=s.tied, max_position_embeddings=1 << 20,
        attn_implementation=attention)
    with torch.device("meta"):
        model = model_class(config).to(DTYPE)
    model = model.to_empty(device="cuda").eval()
    for weight in model.parameters():
        weight.data.normal_(0, 0.02)
    inverse = 1 / (10000 ** (torch.arange(0, s.dim, 2, device="cuda") / s.dim))
    for name, buffer in model.named_buffers():
        if "inv_freq" in name:
            buffer.data = inverse.float()
    model.tie_weights()
    return model


def transformers_step(model, s, context, requests, offloads, repeats, steps):
    from transformers import DynamicCache
    cache = DynamicCache(config=model.config, offloading=offloads)
    for layer in range(s.layers):
        cache.update(random(requests, s.kv_heads, context, s.dim),
                     random(requests, s.kv_heads, context, s.dim), layer)
    tokens = torch.zeros(requests, 1, dtype=torch.long, device="cuda")

    def step():
        out = model(input_ids=tokens, past_key_values=cache, use_cache=True)
        tokens.copy_(out.logits[:, -1:].argmax(dim=-1))

    with torch.inference_mode():
        step()
        torch.cuda.synchronize()
        return timed(step, repeats, steps)


def free():
    gc.collect()
    torch.cuda.empty_cache()


class Results:
    """The output file, read at the start and written after every figure."""

    def __init__(self, path, about):
        self.path = path
        self.data = {"machine": about, "records": []}
        if os.path.exists(path):
            with open(path) as file:
                self.data = json.load(file)

    def has(self, key):
        return any(r["key"] == key for r in self.data["records"])

    def add(self, key, requests, context, model, ms, note="", **more):
        record = {"key": key, "who": key.split("/")[0], "model": model, "context": context,
                  "requests": requests, "note": note} | more
        if ms:
            mean = statistics.mean(ms)
            record |= {"step_ms": mean, "repeats_ms": ms, "tokens_per_s": 1000 * requests / mean,
                       "peak_device_bytes": torch.cuda.max_memory_reserved()}
        self.data["records"].append(record)
        with open(self.path + ".new", "w") as file:
            json.dump(self.data, file, indent=1)
        os.replace(self.path + ".new", self.path)
        print(f"| {record['who']} | {context} | {requests} | "
              f"{record.get('tokens_per_s', 0):.1f} | {record.get('step_ms', 0):.2f} | {note} |",
              flush=True)


def batches(s, context, cap, asked, per_token=1.0):
    """One request, and as many as fit beside the weights and 3 GB for everything else."""
    room = cap - s.weight_bytes - 3e9 * min(1, cap / 40e9)
    most = int(room / (s.row_bytes * per_token * (context + 8)))
    wanted = {"1": [1], "best": [most], "both": [1, most]}[asked]
    return [n for n in dict.fromkeys(wanted) if n > 0]


def try_batches(results, args, s, context, who, run, force_one=False):
    sizes = batches(s, context, args.cap, args.requests, args.per_token.get(who, 1))
    for wanted in sizes or ([1] if force_one else []):
        key = f"{who}/{args.model}/{context}/{'one' if wanted == 1 else 'best'}"
        requests = wanted
        while requests > 0 and not results.has(key) and time.time() < args.end:
            note = ""
            free()
            torch.cuda.reset_peak_memory_stats()
            try:
                ms = run(requests)
            except torch.OutOfMemoryError:
                ms = None
            except Exception as error:  # the others still run
                ms, note = None, f"{type(error).__name__}: {error}"[:200]
            free()
            if ms or note or requests == 1:
                results.add(key, requests, context, args.model, ms, note or ("" if ms else "out of memory"))
            requests = min(requests - 1, int(requests * 0.85))


def offloaded_graph(results, args, decoder, context):
    for requests in {"1": (1,), "best": (2,), "both": (1, 2)}[args.requests]:
        key = f"offloaded-graph/{args.model}/{context}/{requests}"
        if results.has(key) or time.time() > args.end:
            continue
        ms, note = None, ""
        free()
        torch.cuda.reset_peak_memory_stats()
        try:
            ms, resident = offloaded_graph_step(decoder, context, requests, args.cap)
            note = f"{resident} of {decoder.s.layers} layers on the device"
        except Exception as error:  # the others still run
            note = f"{type(error).__name__}: {error}"[:200]
        results.add(key, requests, context, args.model, ms, note)


def integrate(results, args, s, who, step, prefill_ms):
    """Whole runs from the step at eight lengths. @param step  of (length, requests), ms"""
    for prompt, output in args.runs:
        key = f"{who}/{args.model}/{prompt}+{output}/integrated"
        if results.has(key) or time.time() > args.end:
            continue
        requests = batches(s, prompt + output, args.cap, "best", args.per_token.get(who, 1))[-1:]
        if not requests:
            continue
        requests = requests[0]
        lengths = [prompt + output * i // 7 for i in range(8)]
        try:
            ms = []
            for length in lengths:
                free()
                ms.append(statistics.mean(step(length, requests)))
            decode = sum((b - a) * (x + y) / 2
                         for a, b, x, y in zip(lengths, lengths[1:], ms, ms[1:]))
            prefill = requests * prefill_ms[prompt]
            results.add(key, requests, prompt, args.model, None, "integrated", output=output,
                        lengths=lengths, step_ms_at=ms, prefill_ms=prefill,
                        decode_tokens_per_s=1000 * requests * output / decode,
                        run_tokens_per_s=1000 * requests * output / (decode + prefill))
            print(f"| {who} {prompt}+{output}, integrated | {requests} requests | decode alone "
                  f"{1000 * requests * output / decode:.1f} | prefill counted "
                  f"{1000 * requests * output / (decode + prefill):.1f} |", flush=True)
        except Exception as error:  # the others still run
            results.add(key, requests, prompt, args.model, None,
                        f"{type(error).__name__}: {error}"[:200], output=output)
    free()


def prefill_times(decoder, runs):
    """Milliseconds of one prompt of each length."""
    times = {}
    with torch.inference_mode():
        decoder.prefill(256)
        for prompt in sorted({p for p, _ in runs}):
            torch.cuda.synchronize()
            times[prompt] = min(timed(lambda: decoder.prefill(prompt), 2, 1))
            free()
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-8b", choices=SHAPES)
    parser.add_argument("--who", default="flashinfer,sdpa,eager,offloaded,linears")
    parser.add_argument("--context", default="4096,18432,34816,131072")
    parser.add_argument("--runs", default="", help="PROMPT:OUTPUT,.. integrated from eight lengths")
    parser.add_argument("--requests", default="both", choices=["1", "best", "both"])
    parser.add_argument("--cap", type=float, default=80 * 2**30, help="bytes of device memory")
    parser.add_argument("--seconds", type=float, default=300, help="begin nothing later")
    parser.add_argument("--commit", default="not said")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    args.end = time.time() + args.seconds
    args.runs = [tuple(map(int, run.split(":"))) for run in args.runs.split(",") if run]
    # eager repeats keys and values for every query head of a group
    args.per_token = {"sdpa": 1.05, "eager": 1.3, "flashinfer-fp8": 0.5}
    s = Shape(args.model)
    free_bytes, total = torch.cuda.mem_get_info()
    outside = total - free_bytes
    args.cap = min(args.cap, total) - outside
    torch.cuda.set_per_process_memory_fraction(min(1.0, args.cap / total))
    versions = {"torch": torch.__version__, "device": torch.cuda.get_device_name(),
                "cap_bytes": args.cap, "commit": args.commit}
    for name in ("transformers", "flashinfer"):
        try:
            versions[name] = __import__(name).__version__
        except ImportError:
            pass
    results = Results(args.out, versions)
    contexts = [int(c) for c in args.context.split(",")]
    who = args.who.split(",")

    prefill_ms = {}
    if {"flashinfer", "flashinfer-fp8", "linears", "offloaded-graph"} & set(who) or args.runs:
        decoder = Decoder(s)
        prefill_ms = prefill_times(decoder, args.runs)
        for n in (1, 8, 16, 32, 64) if "linears" in who else []:
            key = f"linears/{args.model}/0/{n}"
            if not results.has(key):
                results.add(key, n, 0, args.model, linears_step(decoder, n))
        for name, dtype in (("flashinfer", DTYPE), ("flashinfer-fp8", torch.float8_e4m3fn)):
            if name not in who:
                continue
            for context in contexts:
                try_batches(results, args, s, context, name,
                            lambda n: flashinfer_step(decoder, context, n, dtype))
            if dtype == DTYPE:
                integrate(results, args, s, name,
                          lambda length, n: flashinfer_step(decoder, length, n, dtype, 1, 4),
                          prefill_ms)
        for context in contexts if "offloaded-graph" in who else []:
            offloaded_graph(results, args, decoder, context)
        del decoder
        free()
    for attention in ("sdpa", "eager"):
        if attention not in who:
            continue
        model = transformers_model(s, attention)
        for context in contexts:
            try_batches(results, args, s, context, attention,
                        lambda n: transformers_step(model, s, context, n, False, 3, 2))
        integrate(results, args, s, attention,
                  lambda length, n: transformers_step(model, s, length, n, False, 1, 1), prefill_ms)
        del model
        free()
    if "offloaded" in who:
        model = transformers_model(s, "sdpa")
        for context in contexts:
            try_batches(results, args, s, context, "offloaded",
                        lambda n: transformers_step(model, s, context, n, True, 3, 1),
                        force_one=True)


if __name__ == "__main__":
    main()
