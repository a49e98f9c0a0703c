#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where captured steps go, kernel by kernel, against their floor.

budget.py RECORD.json..: each of spectx-bench --json, with the kernels (--kernels) of the same steps
in RECORD.csv beside it. Writes the terms into the records, prints them and the kernels that take
longest, and removes the .csv files.

A kernel that starts before the one ahead of it has ended counts from its end. The floor of a term
is the larger of its bytes over the rate of a copy inside the device, measured in the same run, and
its operations over --tflops.
"""
import argparse
import collections
import csv
import json
import os
import re

SIDE = ("gather_rows", "scatter_rows", "advance_durable", "move_rows", "stamp")  # other streams'
STEPS = 24  # that count, the last ones
TERMS = {"products": "products of the layers", "logits": "logits", "attend": "attend",
         "head": "head: products, keys, scores, top-k, features", "slots": "slots and misses",
         "rows": "norms, RoPE, SwiGLU, new rows", "tokens": "embeddings, argmax",
         "waiting": "waiting for rows", "between kernels": "between kernels",
         "between steps": "between steps"}


def load(path):
    """Steps of each graph, in the order in which they ran: [[(start, end, blocks, name)]]."""
    graphs = {}
    with open(path, newline="") as file:
        lines = csv.reader(file)
        next(lines)
        for graph, launch, start, end, blocks, *name in lines:
            steps = graphs.setdefault(graph, {})
            kernel = (int(start), int(end), int(blocks), ",".join(name))
            steps.setdefault(launch, []).append(kernel)
    return [[sorted(step) for step in steps.values()] for steps in graphs.values()]


def short(name):
    """spectx's kernels by their file's name, those of others as they are."""
    found = re.search(r"(\w+)_kernel", name)
    if "spectx" not in name:
        return name.split("(")[0][:40]
    return found[1] if found and found[1] != "elementwise" else re.search(r"(\w+)[>,(]", name)[1]


def terms_of(kernels):
    """The term of each kernel of the compute stream. The head's products come before the model's
    embeddings, or after no norm, attention or SwiGLU: of what its taps see."""
    embeds = [i for i, k in enumerate(kernels) if "embed" in k]
    is_product = lambda k: "spectx" not in k or "matmul" in k
    terms, before = [], ""
    for i, k in enumerate(kernels):
        follows = next((n for n in kernels[i + 1:] if not is_product(n)), "")
        if "slots" in k:
            term = "slots"
        elif i < embeds[-1] or "ring" in k:
            term = "head"
        elif "argmax" in k or "embed" in k:
            term = "tokens"
        elif "attend" in k:
            term = "attend"
        elif not is_product(k):
            term = "rows"
        elif "reduce" in k.lower():  # the second half of a product
            term = terms[-1]
        elif is_product(before) or "embed" in before or "ring" in before:
            term = "head"
        else:
            term = "logits" if "argmax" in follows else "products"
        terms.append(term)
        before = k
    return terms


def measure(steps):
    """Microseconds of a step by term; of each kernel its number, time and own time in a step."""
    us = dict.fromkeys(TERMS, 0.0)
    by_name = collections.defaultdict(lambda: [0, 0.0, 0.0])
    at = None
    steps = steps[-STEPS - 1:]
    for n, step in enumerate(steps):
        main = [k for k in step if not any(s in k[3] for s in SIDE)]
        gathers = [k[1] for k in step if "gather_rows" in k[3]]
        if n:
            us["between steps"] += main[0][0] - at
            at = main[0][0]
        for (start, end, blocks, name), term in zip(main, terms_of([k[3] for k in main])):
            if n:
                waited = max([g for g in gathers if at < g <= start], default=at) - at
                gap = max(start - at, 0)
                own = max(end - max(start, at), 0)
                us["waiting"] += waited
                us["between kernels"] += gap - waited
                us[term] += own
                entry = by_name[short(name), blocks if term in ("products", "head") else 0, term]
                entry[0] += 1
                entry[1] += end - start
                entry[2] += own
            at = end if at is None else max(at, end)
    count = 1000 * (len(steps) - 1)
    kernels = [{"name": name, "blocks": blocks, "term": term, "in_a_step": x[0] * 1000 / count,
                "us": x[1] / count, "own_us": x[2] / count}
               for (name, blocks, term), x in by_name.items()]
    return ({t: v / count for t, v in us.items()},
            sorted(kernels, key=lambda k: -k["own_us"]))


def floors(record, copy_gb_s, tflops):
    """Microseconds of a step by term; waiting: of the transfers that nothing ahead can hide."""
    us = {t: max(w["bytes"] / copy_gb_s / 1e3, w["flops"] / tflops / 1e6)
          for t, w in record["floor"].items()}
    return us | {"waiting": 1000 * record["exposed_floor_ms"]}


def show(record):
    budget = record["budget"]
    print(f"\n{record['mode']}, {record['requests']} x {record['context']} tokens, us of a step\n")
    print("| | us | floor | |\n|---|---|---|---|")
    for term, name in TERMS.items():
        us, floor = budget["us"][term], budget["floor_us"].get(term, 0)
        print(f"| {name} | {us:,.0f} | {floor:,.0f} | {f'{us / floor:.2f} x' if floor > 20 else ''} |")
    us, floor = sum(budget["us"].values()), sum(budget["floor_us"].values())
    print(f"| all | {us:,.0f} | {floor:,.0f} | {us / floor:.2f} x |\n")
    print("| kernel | blocks | term | in a step | us of a step | own | each |\n|" + "---|" * 7)
    for k in budget["kernels"][:30]:
        print(f"| {k['name']} | {k['blocks'] or ''} | {k['term']} | {k['in_a_step']:.0f} "
              f"| {k['us']:.1f} | {k['own_us']:.1f} | {k['us'] / k['in_a_step']:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+")
    parser.add_argument("--tflops", type=float, default=989,
                        help="of dense products in bf16 (default: an H100 SXM's)")
    args = parser.parse_args()
    for path in args.records:
        trace = path.removesuffix(".json") + ".csv"
        if not os.path.exists(trace):
            continue
        with open(path) as file:
            data = json.load(file)
        graphs = load(trace)
        records = [r for r in data["records"] if not r["error"]]
        if len(graphs) != len(records):
            raise SystemExit(f"{trace}: {len(graphs)} graphs for {len(records)} records")
        for record, steps in zip(records, graphs):
            us, kernels = measure(steps)
            record["budget"] = {"us": us, "kernels": kernels, "tflops": args.tflops,
                                "copy_gb_s": data["machine"]["copy_gb_s"],
                                "floor_us": floors(record, data["machine"]["copy_gb_s"],
                                                   args.tflops)}
            show(record)
        with open(path, "w") as file:
            json.dump(data, file, indent=1)
            file.write("\n")
        os.remove(trace)


if __name__ == "__main__":
    main()
