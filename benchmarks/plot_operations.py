#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plots (SVG) of the CUDA operations' benchmarks, from the JSON files that the programs wrote.

plot_operations.py [--results DIR] [--plots DIR]
"""
import argparse
import json
import os

import plots


def load(folder, name):
    """{(operation, type): [(arguments, record)]} of one file."""
    with open(os.path.join(folder, name)) as file:
        data = json.load(file)
    found = {}
    for record in data["benchmarks"]:
        parts = [p for p in record["name"].split("/") if p != "manual_time"]
        plain = [p for p in parts if ":" not in p]
        arguments = dict(p.split(":") for p in parts if ":" in p)
        key = (plain[0], plain[2] if len(plain) > 2 else "")
        found.setdefault(key, []).append((arguments, record))
    return found, data["context"]


def microseconds(record):
    return record["real_time"] * {"ns": 1e-3, "us": 1, "ms": 1e3}[record["time_unit"]]


def counted(number, noun):
    return f"{number} {noun}{'' if int(number) == 1 else 's'}"


def title(text, context):
    return f"{text} ({context['machine'].split(',')[0]}, commit {context['commit']})"


def attention(results, to):
    found, context = load(results, "cuda-attention-h100.json")
    values = {}
    for operation, label in (("attend_all", "attend, {tokens} tokens"),
                             ("attend_slots", "attend, {budget} rows from slots"),
                             ("score", "score, {tokens} tokens")):
        for arguments, record in found.get((operation, "bf16"), []):
            if arguments.get("capacity", arguments.get("tokens")) != arguments.get("tokens"):
                continue
            place = counted(arguments["requests"], "request")
            values[label.format(**arguments), place] = 100 * record["of_copy"]
    places = [counted(n, "request") for n in (1, 4, 16, 64)]
    groups = [g for g in ("attend, 4096 tokens", "attend, 34816 tokens", "attend, 131072 tokens",
                          "attend, 2048 rows from slots", "score, 34816 tokens",
                          "score, 131072 tokens") if any(g == key[0] for key in values)]
    values = {k: v for k, v in values.items() if k[0] in groups and k[1] in places}
    plots.bars(to("attention"), title("Rate, % of a copy inside the device", context), values,
               places, groups, line=(100, "the device's own copy"))


def selection(results, to):
    found, context = load(results, "cuda-selection-h100.json")
    values = {}
    for arguments, record in found[("top_k", "f32")]:
        if arguments["tokens"] == "131072" and arguments["budget"] == "2048":
            values["top_k, 2048 of 131072", counted(arguments["rows"], "row")] = microseconds(record)
    groups = ["top_k, 2048 of 131072"]
    for pattern in ("recorded", "drifting"):
        groups.append(f"update_slots, 8 heads x 2048, {pattern}")
        for arguments, record in found[("update_slots", pattern)]:
            if arguments["slots"] == "4096":
                values[groups[-1], counted(arguments["requests"], "request")] = microseconds(record)
    places = list(dict.fromkeys(place for _, place in values))
    plots.bars(to("selection"), title("Time, us", context), values, places, groups)


def gather(results, to):
    found, context = load(results, "cuda-gather-h100.json")
    sizes = {a["GiB"] for a, _ in found[("gather_rows", "bf16")]}
    size = max(sizes, key=int)
    values = {}
    for dtype in ("bf16", "f8_e4m3"):
        for arguments, record in found[("gather_rows", dtype)]:
            if arguments["GiB"] == size:
                values[f"{dtype} rows", counted(arguments["blocks"], "block")] = (
                    record["bytes_per_second"] * 1e-9)
    places = list(dict.fromkeys(place for _, place in values))
    copy = next(r for a, r in found[("pinned_copy", "")] if a["leaves"] == "0")
    plots.bars(to("gather"), title(f"Gather from a host tier of {size} GiB, GB/s on the link",
                                   context), values, places, ["bf16 rows", "f8_e4m3 rows"],
               line=(copy["bytes_per_second"] * 1e-9, "pinned copy"))


def pipeline(results, to):
    found, context = load(results, "cuda-pipeline-h100.json")
    values = {}
    for dtype in ("bf16", "f8_e4m3"):
        for arguments, record in found[("products_beside_gather", dtype)]:
            values[f"{dtype} rows, {arguments['blocks']} blocks",
                   counted(arguments["rows"], "row")] = 100 * record["slower"]
    groups = sorted({g for g, _ in values}, key=lambda g: (g.split()[0], int(g.split()[2])))
    places = sorted({p for _, p in values}, key=lambda p: int(p.split()[0]))
    plots.bars(to("pipeline"), title("A step's matrix products beside a gather: % slower", context),
               values, places, groups, line=(3, "asked: 3 %"))


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", default=os.path.join(here, "results"))
    parser.add_argument("--plots", default=os.path.join(here, "..", "docs"))
    args = parser.parse_args()
    for draw in (attention, selection, gather, pipeline):
        draw(args.results, lambda name: os.path.join(args.plots, f"cuda-{name}.svg"))


if __name__ == "__main__":
    main()
