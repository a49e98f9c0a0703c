#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tables (Markdown, on standard output) and plots (SVG) of the files that scripts/compare wrote.

report.py DIR [--plots DIR]
"""
import argparse
import glob
import json
import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import plots  # noqa: E402

NAMES = {"spectx": "spectx", "dense": "spectx, dense path", "flashinfer": "FlashInfer 0.6.0",
         "flashinfer-fp8": "FlashInfer 0.6.0, fp8 cache",
         "sdpa": "transformers, sdpa", "eager": "transformers, eager",
         "offloaded": "transformers, offloaded cache",
         "offloaded-graph": "a dense CUDA graph, offloaded cache"}


def load(folder):
    """Records of both programs under the same names, the longest-running file last."""
    records = []
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        with open(path) as file:
            data = json.load(file)
        for r in data["records"]:
            if "who" in r:
                record = dict(r, group=NAMES.get(r["who"], r["who"]), error=r.get("note", ""))
            else:
                record = dict(r, group=NAMES[r["mode"]], model=data["machine"]["model"])
                if r["mode"] == "spectx" and r.get("host_dtype", "own") != "own":
                    record["group"] += ", fp8 host rows" if "f8" in r["host_dtype"] else ", int8 host rows"
            records.append(dict(record, file=os.path.basename(path),
                                commit=data["machine"]["commit"]))
    return records


def table(rows, head):
    print("| " + " | ".join(map(str, head)) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def best(records, model, single):
    """The best batch (or the single request) of each group and context."""
    found = {}
    for r in records:
        if r["model"] != model or r["group"] == "linears" or not r.get("tokens_per_s"):
            continue
        if (r["requests"] == 1) != single or r.get("miss_scale", 1) > 1 or is_ablation(r) or is_sweep(r):
            continue
        key = (r["group"], r["context"])
        if key not in found or r["tokens_per_s"] > found[key]["tokens_per_s"]:
            found[key] = r
    return found


def is_ablation(record):
    return record["file"].startswith("ablation")


def is_sweep(record):
    return record["file"].startswith("sweep")


def show_misses(records):
    """What more misses than the recorded trace's do to a batch."""
    scaled = [r for r in records if r.get("miss_scale", 1) >= 1 and r.get("tokens_per_s") and
              r.get("mode") == "spectx" and not is_ablation(r)]
    key = lambda r: (r["model"], r["group"], r["context"], r["requests"], r["hot_buffer"])
    batches = {key(r) for r in scaled if r["miss_scale"] > 1}
    rows = []
    for batch in sorted(batches):
        by_scale = {r["miss_scale"]: r for r in scaled if key(r) == batch}
        rows.append([*batch] + [
            f"{r['tokens_per_s']:.0f} ({100 * r['miss_rate']:.1f} %, {r['exposed_ms']:.2f} ms)"
            if r else "-" for r in (by_scale.get(x) for x in (1, 1.5, 2))])
    if rows:
        print("tokens/s (misses of the budget, exposed time of a step) with times the misses of "
              "the recorded trace:\n")
        table(rows, ["model", "", "context", "requests", "buffer", "1x", "1.5x", "2x"])


def show_integrated(records):
    rows = [[r["model"], r["group"], f"[{r['context']}, {r['output']}]", r["requests"],
             f"{r['decode_tokens_per_s']:.1f}", f"{r['run_tokens_per_s']:.1f}",
             f"{r['step_ms_at'][0]:.1f} to {r['step_ms_at'][-1]:.1f}"]
            for r in records if r.get("decode_tokens_per_s")]
    if rows:
        print("Whole runs, integrated from steps measured at eight lengths:\n")
        table(rows, ["model", "", "run", "requests", "decode alone, tokens/s",
                     "prefill counted", "step, ms"])


def show_ablation(records):
    """Steps without prefetch are computed: the transfers lie beside nothing then."""
    rows = []
    for r in records:
        if not is_ablation(r) or r.get("error"):
            continue
        alone = r["step_ms"] - r["exposed_ms"] + r["transfer_ms"]
        rows.append([r["file"], r["group"], r["context"], r["requests"], f"{r['hot_buffer']:g}x",
                     f"{100 * r['miss_rate']:.1f} %", f"{r['groups_on_host']}/{r['groups']}",
                     f"{1000 * r['requests'] / alone:.0f}", f"{r['tokens_per_s']:.0f}"])
    if rows:
        print("Ablation:\n")
        table(rows, ["file", "", "context", "requests", "buffer", "rows fetched", "groups on the host",
                     "tokens/s without prefetch (computed)", "tokens/s"])


def timelines(folder):
    """Whole runs and arrivals of spectx-bench by the names of their files."""
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, "runs", "*.json"))):
        with open(path) as file:
            data = json.load(file)
            for t in data["timelines"]:
                found[os.path.basename(path)[:-5]] = dict(t, commit=data["machine"]["commit"])
    return found


def show_runs(runs):
    """Prompts that were filled in are counted by the forward pass of prefill-*."""
    prefill = {t["context"]: t["prompt_seconds"] / t["visits"] for name, t in runs.items()
               if name.startswith("prefill") and t["prompt_seconds"]}
    rows = []
    for name, t in runs.items():
        if name.startswith("prefill") or not t["steps"]:
            continue
        with_prompts = t["tokens_per_s_with_prompts"]
        if t["kind"] == "run" and t["context"] in prefill:
            output = t["longest"] - t["context"]
            with_prompts = output / (output / t["tokens_per_s"] + prefill[t["context"]])
        rows.append([name, t["requests"], f"{t['tokens_per_s']:.0f}", f"{with_prompts:.0f}",
                     t["steps"], f"{t['step_ms_p50']:.2f} / {t['step_ms_p99']:.2f}",
                     t["moved_groups"], t["stalled_batches"],
                     f"{100 * t['memory']['uncounted_share']:+.2f} %", t["error"] or "-"])
    if not rows:
        return
    print("Whole runs and arrivals of spectx-bench:\n")
    table(rows, ["run", "requests", "tokens/s", "prompts counted", "steps", "p50 / p99, ms",
                 "groups moved", "batches that waited", "memory beside what was counted",
                 "stopped"])
    print("seconds of a prompt's forward pass: " + (", ".join(
        f"{tokens} tokens {seconds:.2f}" for tokens, seconds in sorted(prefill.items())) or "-"))
    causes = sorted({d["cause"] for t in runs.values() for d in t["disturbances"]})
    names = [name for name in runs if not name.startswith("prefill")]
    cell = lambda t, cause: next((f"{d['steps']}, {d['worst_ratio']:.2f} ({d['longer']})"
                                  for d in t["disturbances"] if d["cause"] == cause), "-")
    print("\nSteps beside a change, the worst against its neighbours (how many are 1.2 x and longer):\n")
    table([[cause] + [cell(runs[name], cause) for name in names] for cause in causes],
          ["beside", *names])


def show_best(records, model, single):
    found = best(records, model, single)
    contexts = sorted({c for _, c in found})
    groups = sorted({g for g, _ in found}, key=lambda g: -max(
        r["tokens_per_s"] for (h, _), r in found.items() if h == g))
    if not groups:
        return found, contexts, groups
    print(f"{model}, {'one request' if single else 'best batch that was measured'}, "
          "tokens/s (requests):\n")
    rows = []
    for g in groups:
        cells = [found.get((g, c)) for c in contexts]
        rows.append([g] + [f"{r['tokens_per_s']:.1f} ({r['requests']})" if r else "-"
                           for r in cells])
    table(rows, ["", *contexts])
    return found, contexts, groups


def plot(path, title, found, contexts, groups):
    values = {(g, f"{c} tokens"): r["tokens_per_s"] for (g, c), r in found.items()}
    plots.bars(path, title, values, [f"{c} tokens" for c in contexts], groups,
               is_logarithmic=True)


def show_details(records):
    rows = []
    for r in records:
        if "mode" not in r:
            continue
        if r["error"]:
            rows.append([r["model"], r["group"], r["context"], r["requests"], r["error"]])
            continue
        rows.append([
            r["model"], r["group"], r["context"], r["requests"],
            "-" if r["mode"] == "dense" else f"{r['hot_buffer']:g}x, misses x {r['miss_scale']:g}",
            f"{r['tokens_per_s']:.1f} ± {r['tokens_per_s_deviation']:.1f}",
            f"{r['step_ms_p50']:.2f} / {r['step_ms_p95']:.2f} / {r['step_ms_longest']:.2f}",
            f"{r['predicted_step_ms']:.2f}", f"{100 * r['miss_rate']:.1f} %",
            f"{r['exposed_ms']:.2f}", f"{r['moved_bytes_per_step'] / 1e6:.0f}",
            f"{r['groups_on_host']}/{r['groups']}",
            f"{r['driver_device_bytes'] / 1e9:.1f} ({r['planned_device_bytes'] / 1e9:.1f})",
            f"{r['host_bytes'] / 1e9:.1f}"])
    table(rows, ["model", "", "context", "requests", "buffer", "tokens/s",
                 "step p50 / p95 / longest, ms", "bound, ms", "misses", "exposed, ms", "MB moved",
                 "groups on the host", "device GB (planned)", "host GB"])
    parts = [r for r in records if r.get("part_ms") and not r["error"]]
    if parts:
        names = list(parts[0]["part_ms"])
        table([[r["model"], r["group"], r["context"], r["requests"]] +
               [f"{r['part_ms'][n]:.2f}" for n in names] for r in parts],
              ["model", "", "context", "requests", *(f"{n}, ms" for n in names)])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--plots")
    args = parser.parse_args()
    records = load(args.folder)
    for model in sorted({r["model"] for r in records}, reverse=True):
        for single in (False, True):
            found, contexts, groups = show_best(records, model, single)
            if args.plots and groups:
                name = f"compare-{model}-{'one' if single else 'best'}.svg"
                what = "one request" if single else "best batch"
                plot(os.path.join(args.plots, name), f"{model}, {what}, decode tokens/s",
                     found, contexts, groups)
    show_misses(records)
    show_integrated(records)
    show_runs(timelines(args.folder))
    show_ablation(records)
    show_details(records)


if __name__ == "__main__":
    main()
