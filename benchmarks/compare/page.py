#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of a page anew from the files of scripts/compare.

page.py DIR PAGE...: each table stands between <!-- table: NAME --> and <!-- end -->. With --check
nothing is written; exit code 1 where a page is not what the files say.
"""
import argparse
import os
import re
import statistics
import sys
import textwrap

import budget
import report

MODEL = "llama-3.1-8b"
FLASHINFER, SDPA, EAGER = report.NAMES["flashinfer"], report.NAMES["sdpa"], report.NAMES["eager"]
DENSE, FP8 = report.NAMES["dense"], "spectx, fp8 host rows"
LONG = 34816
RUNS = {"[2k,16k]": (2048, 16384), "[2k,32k]": (2048, 32768), "[16k,2k]": (16384, 2048),
        "[32k,2k]": (32768, 2048)}


GROWTH = (2081, 8192, 12800, 18100, 23600, 28800, 34300)


def rows_of(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def number(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def times(a, b):
    """How often b is in a; nothing where one of both is missing."""
    return a / b if a and b else None


def show_times(value):
    if value is None:
        return "-"
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} x"


class Results:
    def __init__(self, folder):
        self.records = report.load(folder)
        self.runs = report.timelines(folder)
        self.budgets = [x for x in report.load(os.path.join(folder, "budget")) if "budget" in x]

    def find(self, group, context, model=MODEL, single=False):
        return report.best(self.records, model, single).get((group, context))

    def rate(self, *args, **more):
        record = self.find(*args, **more)
        return record["tokens_per_s"] if record else None

    def dense(self, context, model=MODEL, single=False):
        """The faster of FlashInfer and our own dense path."""
        return max(filter(None, (self.rate(g, context, model, single) for g in (FLASHINFER, DENSE))),
                   default=None)

    def prefill(self, prompt):
        """Seconds of one prompt, as spectx computes it; the other runs fill theirs in."""
        for name, t in self.runs.items():
            if name.startswith(("prefill", "full-2k", "whole-2k")) and t["context"] == prompt:
                return t["prompt_seconds"] / t["visits"]
        return None

    def growing(self):
        """34 requests that grow: the run in full, or the one in stretches."""
        return self.runs.get("full-2k-32k") or self.runs["whole-2k-32k"]

    def in_full(self, prompt, output, mode):
        """Tokens/s and requests of a run with no token filled in. Files may go on from one another;
        where the last one was cut off, its steps go on growing as they grew."""
        at, end = prompt, prompt + output
        tokens = seconds = requests = 0
        while at < end:
            t = next((t for name, t in self.runs.items() if name.startswith("full") and
                      t["mode"] == mode and t["context"] == at), None)
            if not t or t["error"] and t["longest"] != end:
                return None
            requests, at = t["requests"], at + t["output_tokens"] // t["requests"]
            tokens, seconds = tokens + t["output_tokens"], seconds + t["step_seconds"]
            if t["error"]:
                seconds += (end - at) * grown_ms(t, (at + end) / 2) / 1000
                tokens, at = tokens + (end - at) * requests, end
        return (tokens / seconds, requests) if at == end else None

    def alone(self, prompt, output, mode):
        """Tokens/s of the steps of a run of spectx-bench, and requests."""
        if self.in_full(prompt, output, mode):
            return self.in_full(prompt, output, mode)
        runs = [t for name, t in self.runs.items() if not name.startswith(("prefill", "check")) and
                t["kind"] == "run" and t["mode"] == mode and t["context"] == prompt and
                t["requests"] >= 8 and not t["error"]]
        for t in runs:
            if t["longest"] == prompt + output:
                return t["tokens_per_s"], t["requests"]
        return None

    def whole(self, prompt, output, mode="spectx"):
        """(tokens/s of steps alone, with prompts, requests) of a run of spectx-bench."""
        found = self.alone(prompt, output, mode)
        if not found:
            return None
        seconds = self.prefill(prompt)
        both = output / (output / found[0] + seconds) if seconds else None
        return found[0], both, found[1]

    def integrated(self, who, prompt, output):
        for r in self.records:
            if r.get("who") == who and r.get("output") == output and r["context"] == prompt:
                if r.get("decode_tokens_per_s"):
                    return r["decode_tokens_per_s"], r["run_tokens_per_s"], r["requests"]
        return None


    def best_dense_run(self, prompt, output):
        """The larger figures of FlashInfer and our own dense path."""
        both = [x for x in (self.integrated("flashinfer", prompt, output),
                            self.whole(prompt, output, "dense")) if x]
        return [max((x[i] for x in both if x[i]), default=None) for i in range(2)]


def commits(r):
    """Of the run, and what is of another one."""
    of_file = {x["file"]: x["commit"] for x in r.records}
    of_file |= {f"runs/{name}.json": t["commit"] for name, t in r.runs.items()}
    of_file |= {f"budget/{x['file']}": x["commit"] for x in r.budgets}
    commit = of_file["spectx.json"]
    others = {}
    for name, other in sorted(of_file.items()):
        if other != commit:
            others.setdefault(other, []).append(name)
    line = f"Commit {commit}, one run of `scripts/compare`."
    for other, names in others.items():
        line += f" Of a run of commit {other}: {', '.join(names)}."
    return textwrap.wrap(line, 118, break_on_hyphens=False)


def grown_ms(t, length):
    """The step of a run at a length that it did not reach, by its last quarter."""
    s = t["samples"]
    last = slice(-len(s["steps"]) // 4, None)
    slope, start = statistics.linear_regression(s["mean_context"][last], s["step_p50_ms"][last])
    return start + slope * length


def beside(t, cause):
    """Of the steps beside a cause; None where there are none."""
    return next((d for d in t["disturbances"] if d["cause"] == cause), None)


def ratios(d):
    """Of steps to their neighbours."""
    return f"{d['median_ratio']:.2f}, {d['p99_ratio']:.2f}, {d['worst_ratio']:.2f}"


def asked(r):
    """DESIGN's targets and what was reached."""
    dense = r.dense(LONG)
    own, fp8 = r.rate("spectx", LONG), r.rate(FP8, LONG)
    rows = []

    def row(what, target, value, show=show_times, is_most=False):
        good = "" if value is None else "yes" if (value <= target) == is_most else "no"
        rows.append([what, ("at most " if is_most else "") + show(target), show(value), good])

    row("34,816 tokens, best batch, over the best dense decode, lossless", 4.5, times(own, dense))
    row("the same, fp8 rows (stretch: 7 x)", 6, times(fp8, dense))
    for who, group, target in (("sdpa", SDPA, 25), ("eager", EAGER, 100)):
        row(f"over transformers {who}, lossless", target, times(own, r.rate(group, LONG)))
        row(f"over transformers {who}, fp8 rows", target, times(fp8, r.rate(group, LONG)))
    for (name, run), (alone, both) in zip(RUNS.items(), ((2.4, 2.4), (4, 4), (3.3, 2), (5.5, 2.1))):
        ours = r.whole(*run) or (None, None)
        theirs = r.best_dense_run(*run)
        row(f"{name} over the best dense decode, decode alone", alone, times(ours[0], theirs[0]))
        row(f"{name} over the best dense decode, prefill counted", both, times(ours[1], theirs[1]))
    one, dense = (r.find(g, 131072, single=True) for g in ("spectx", DENSE))
    if one and dense:
        row("one request of 131,072 tokens over dense", 1.7,
            times(one["tokens_per_s"], dense["tokens_per_s"]))
        row("attention's part of that step, smaller by", 8,
            times(dense["part_ms"]["attend"], one["part_ms"]["attend"]))
    short, dense = (r.rate(g, 4096, single=True) for g in ("spectx", DENSE))
    if short and dense:
        row("one request of 4,096 tokens, slower than dense by", 2, 100 * (dense / short - 1),
            lambda v: f"{v:.1f} %", True)
    edge = max(filter(None, (r.rate("spectx", LONG, "llama-3.2-1b", x) for x in (False, True))),
               default=None)
    hosts = report.NAMES["offloaded-graph"]
    for target, group in ((20, report.NAMES["offloaded"]), (1.5, hosts)):
        theirs = [r.rate(group, LONG, "llama-3.2-1b", x) for x in (False, True)]
        row(f"4 GB, the 1B shape, 34,816 tokens, over {group}", target,
            times(edge, max(filter(None, theirs), default=None)))
    exposed = [100 * (x["exposed_ms"] - x["exposed_floor_ms"]) / x["step_ms"] for x in r.records
               if x.get("mode") == "spectx" and x.get("groups_on_host") and x["model"] == MODEL]
    row("exposed time above its floor, of a step", 5, max(exposed, default=None),
        lambda v: "-" if v is None else f"{v:.1f} %", True)
    for name, what in (("full-2k-32k", "growth in full"), ("whole-2k-32k", "growth in stretches"),
                       ("arrivals", "arrivals")):
        t = r.runs.get(name)
        if not t:
            continue
        of = [beside(t, "any change"), beside(t, "nothing")]
        row(f"{what}: the worst step beside a change against its neighbours", 1.2, of[0]["worst_ratio"],
            is_most=True)
        rows += [[f"{what}, steps beside {d['cause']}: median, p99, worst; above 1.2", "",
                  f"{ratios(d)}; {100 * d['longer'] / d['steps']:.1f} % of {d['steps']:,}", ""] for d in of]
        share = 100 * abs(t["memory"]["uncounted_share"])
        row(f"{what}: memory against the planner's figure", 1, share, lambda v: f"{v:.2f} %", True)
    return rows_of(["", "asked", "reached", ""], rows)


def by_context(r, single):
    found = report.best(r.records, MODEL, single)
    contexts = sorted({c for _, c in found})
    groups = sorted({g for g, _ in found}, key=lambda g: list(ORDER).index(g))

    def cell(record):
        if not record:
            return "-"
        rate = number(record["tokens_per_s"], 0 if record["tokens_per_s"] >= 100 else 1)
        return rate if single else f"{rate} ({record['requests']})"

    rows = [[g, *(cell(found.get((g, c))) for c in contexts)] for g in groups]
    for g in ("spectx", FP8):
        ratios = [times(r.rate(g, c, single=single), r.dense(c, single=single)) for c in contexts]
        if any(ratios):
            rows.append([f"{g}, over the best dense", *map(show_times, ratios)])
    return rows_of(["one request" if single else "best batch: tokens/s (requests)",
                    *(f"{c:,}" for c in contexts)], rows)


ORDER = ["spectx", FP8, "spectx, int8 host rows", FLASHINFER, report.NAMES["flashinfer-fp8"], DENSE, SDPA,
         EAGER, report.NAMES["offloaded"], report.NAMES["offloaded-graph"]]


def misses(r):
    scales = (1, 1.5, 2)
    groups = {}
    for x in r.records:
        if (x["file"].startswith("spectx") and x["context"] == LONG and x["model"] == MODEL and
                x.get("miss_scale") in scales and not x["error"]):
            key = (x["group"], x["requests"], x["hot_buffer"])
            groups.setdefault(key, {})[x["miss_scale"]] = x
    dense = r.dense(LONG)
    rows = []
    for (group, requests, buffer), found in groups.items():
        cells = []
        for scale in scales:
            x = found.get(scale)
            cells.append("-" if not x else
                         f"{x['tokens_per_s']:,.0f}, {show_times(times(x['tokens_per_s'], dense))} "
                         f"({100 * x['miss_rate']:.1f} %; {x['exposed_ms']:.2f} ms)")
        rows.append([f"{group}, {requests} requests, buffer {buffer:g}x", *cells])
    return rows_of(["misses of the trace, times", *(f"{s:g}" for s in scales)], rows)


def others(r):
    """Other shapes."""
    rows = []
    for model, name in (("qwen3-8b", "Qwen3-8B"), ("mistral-7b", "Mistral-7B")):
        found = [r.find(g, LONG, model) for g in ("spectx", FP8, DENSE, FLASHINFER)]
        if not any(found):
            continue
        ratios = [show_times(times(x and x["tokens_per_s"], r.dense(LONG, model))) for x in found[:2]]
        rows.append([name, *(f"{x['tokens_per_s']:,.0f} ({x['requests']})" if x else "-" for x in found),
                     "; ".join(ratios)])
    return rows_of(["34,816 tokens", "spectx", "fp8 rows", "dense path", "FlashInfer",
                    "over the best dense"], rows)


def edge(r):
    """Under 4 GB."""
    model = "llama-3.2-1b"
    contexts = (16384, LONG)
    rows = []
    for group in ("spectx", DENSE, report.NAMES["offloaded-graph"], report.NAMES["offloaded"]):
        for single in (True, False):
            found = [r.find(group, c, model, single) for c in contexts]
            if not any(found):
                continue
            rows.append([f"{group}, {'one request' if single else 'best batch'}", *(
                f"{x['tokens_per_s']:,.{0 if x['tokens_per_s'] > 100 else 1}f} ({x['requests']}"
                f"{'; ' + x['note'] if x.get('note') else ''})" if x else "-" for x in found)])
    return rows_of(["4 GB, Llama-3.2-1B's shape", *(f"{c:,}" for c in contexts)], rows)


def whole(r):
    who = [("spectx, lossless", lambda run: r.whole(*run)),
           (DENSE, lambda run: r.whole(*run, mode="dense")),
           (FLASHINFER, lambda run: r.integrated("flashinfer", *run)),
           (SDPA, lambda run: r.integrated("sdpa", *run))]
    rows = []
    for name, get in who:
        cells = []
        for run in RUNS.values():
            x = get(run)
            cells.append("-" if not x else f"{number(x[0])}; {number(x[1])} ({x[2]})")
        rows.append([name, *cells])
    return rows_of(["decode alone; prefill counted (requests)", *RUNS], rows)


def ablation(r):
    """Steps without prefetch are computed: their transfers lie beside nothing."""
    sets = {(x["file"][:-5], x.get("miss_scale")): x for x in r.records
            if report.is_ablation(x) and not x["error"]}
    rows = []

    def row(what, name, scale=1.0, has_prefetch=True):
        x = sets.get((name, scale))
        if not x:
            return
        alone = x["step_ms"] - x["exposed_ms"] + x["transfer_ms"]
        rate = x["tokens_per_s"] if has_prefetch else 1000 * x["requests"] / alone
        rows.append([what, f"{100 * x['miss_rate']:.1f} %",
                     f"{rate:,.0f}{'' if has_prefetch else ' (computed)'}"])

    row("sparse attention alone: the rows are fetched in every step, no prefetch",
        "ablation-host-1x", 20.0, False)
    row("+ difference loading, buffer 1x", "ablation-host-1x", 1.0, False)
    row("+ prefetch", "ablation-host-1x")
    row("+ hot buffer 2x", "ablation-host-2x")
    row("+ fp8 host tier", "ablation-host-2x-fp8")
    row("+ adaptive memory: all that fits stays on the device", "ablation-planned")
    for group, what in (("spectx", "lossless"), (FP8, "fp8")):
        x = r.find(group, LONG)
        if x:
            rows.append([f"the best batch in the same memory, {what} ({x['requests']} requests)",
                         f"{100 * x['miss_rate']:.1f} %", number(x["tokens_per_s"])])
    return rows_of(["eight requests of 34,816 tokens", "rows fetched", "tokens/s"], rows)


def check(r):
    """Runs in full, and what stretches make of them."""
    rows = []
    for run, name, what in (("[32k,2k]", "whole-32k-2k", "in full"),
                            ("[32k,2k]", "check-32k-2k", "in stretches"),
                            ("[2k,32k]", "full-2k-32k", "in full"),
                            ("[2k,32k]", "whole-2k-32k", "in stretches")):
        t = r.runs.get(name)
        if t:
            rows.append([f"{run} {what}", t["commit"], f"{t['steps']:,}", number(t["tokens_per_s"]),
                         f"{t['step_ms_p50']:.2f} / {t['step_ms_p99']:.2f} / {t['step_ms_longest']:.2f}"])
    return rows_of(["", "commit", "steps", "tokens/s", "step p50 / p99 / longest, ms"], rows)


def sweep(r):
    rows = []
    found = [x for x in r.records if report.is_sweep(x) and not x["error"]]
    for x in sorted(found, key=lambda x: (x["group"], x["requests"], x["hot_buffer"])):
        rows.append([x["group"], str(x["requests"]), f"{x['hot_buffer']:g}x",
                     f"{x['host_bytes'] / 2**30:.0f} GiB", f"{x['groups_on_host']}/{x['groups']}",
                     f"{100 * x['miss_rate']:.1f} %", f"{x['exposed_ms']:.2f} ms",
                     f"{x['step_ms_p50']:.2f} ms ({x['predicted_step_ms']:.2f})",
                     f"{x['tokens_per_s']:,.0f} +- {x['tokens_per_s_deviation']:.0f}"])
    return rows_of(["34,816 tokens", "requests", "buffer", "host tier", "groups there", "misses",
                    "exposed", "step p50 (predicted)", "tokens/s"], rows)


def growth(t, contexts):
    """A whole run at some of its lengths, and all of it."""
    s = t["samples"]
    rows = []
    for asked_for in contexts:
        i = min(range(len(s["steps"])), key=lambda n: abs(s["mean_context"][n] - asked_for))
        rows.append([f"{s['mean_context'][i]:,.0f}", number(s["tokens_per_s"][i]),
                     f"{s['step_p50_ms'][i]:.2f} ms", f"{s['resident_layers'][i]:.1f}",
                     f"{100 * s['miss_rate'][i]:.0f} %", f"{s['exposed_ms'][i]:.2f} ms"])
    rows.append([f"all, {t['steps']:,} steps", number(t["tokens_per_s"]),
                 f"{t['step_ms_p50']:.2f} ms", f"{t['moved_groups']} groups moved",
                 f"{t['stalled_batches']} batches waited for one", ""])
    return rows_of(["context", "tokens/s", "step p50", "layers of each on the device", "misses",
                    "exposed"], rows)


def arrivals(r):
    t = r.runs["arrivals"]
    rows = [["had to wait; refused", f"{t['waited']}; {t['refused']}"],
            ["at once, at most", str(t["most_at_once"])],
            ["parked, and resumed", str(t["parks"])],
            ["groups moved; batches that waited for a move",
             f"{t['moved_groups']}; {t['stalled_batches']}"],
            ["tokens/s over all steps; in the fastest stretch",
             f"{number(t['tokens_per_s'])}; {number(max(t['samples']['tokens_per_s']))}"]]
    return rows_of([f"{t['visits']} requests of a seed", ""], rows)


def prompts(r):
    torch = {}
    for x in r.records:
        if x.get("who") == "flashinfer" and x.get("prefill_ms"):
            torch[x["context"]] = x["prefill_ms"] / x["requests"] / 1000
    rows = []
    for prompt in (2048, 16384, 32768):
        ours, theirs = r.prefill(prompt), torch.get(prompt)
        rows.append([f"{prompt:,}", number(ours, 2), number(theirs, 2), show_times(times(ours, theirs))])
    return rows_of(["seconds of one prompt, tokens", "spectx", "torch", "of torch's"], rows)


def memory(r):
    rows = []
    for name, t in r.runs.items():
        if name.startswith(("prefill", "check")) or t["mode"] == "dense" or t["error"]:
            continue
        m = t["memory"]
        counted = m["planned"] + m["benchmark"]
        rows.append([name, *(f"{v / 1e9:.3f}" for v in (m["cap"], m["driver_peak"], m["start_up"],
                                                        counted)),
                     f"{100 * m['uncounted_share']:+.2f} %"])
    return rows_of(["GB", "cap", "the driver's most", "context, modules", "counted",
                    "taken beside it"], rows)


def causes(r):
    runs = {"growth": r.growing(), "arrivals": r.runs["arrivals"]}
    names = dict.fromkeys(d["cause"] for t in runs.values() for d in t["disturbances"])

    def cell(d):
        if not d:
            return "-"
        above = f"{100 * d['longer'] / d['steps']:.1f} %"
        if "slow_link" in d and d["longer"]:
            above += f": {d['longer_slow_link']}, {d['longer_more_bytes']} of {d['longer']}"
        slow = f"; {100 * d['slow_link'] / d['steps']:.1f} %" if "slow_link" in d else ""
        return f"{d['steps']:,}: {ratios(d)} ({above}{slow})"

    has_links = all("slow_link" in d for t in runs.values() for d in t["disturbances"])
    links = (": beside a link below 0.85 of its rate, beside bytes above 1.15; "
             "such a link in all steps" if has_links else "")
    return rows_of([f"beside: steps: median, p99, worst against their neighbours (above 1.2{links})", *runs],
                   [[name, *(cell(beside(t, name)) for t in runs.values())] for name in names])


def step_budget(r):
    """Terms of a step beside their floors."""
    cases = sorted(r.budgets, key=lambda x: (x["mode"] == "dense", x["requests"], x["context"]))
    if not cases:
        raise KeyError("budget/*.json")
    rows = []

    def row(what, get):
        cells = []
        for x in cases:
            us, floor = get(x["budget"]["us"]), get(x["budget"]["floor_us"])
            over = f" ({us / floor:.2f} x)" if floor > 20 else ""
            cells.append(f"{us:,.0f} / {floor:,.0f}{over}")
        rows.append([what, *cells])

    for term, name in budget.TERMS.items():
        row(name, lambda us: us.get(term, 0))
    row("all", lambda us: sum(us.values()))
    untraced = [r.find(x["group"], x["context"], single=x["requests"] == 1) for x in cases]
    rows.append(["a step with no trace, ms: p50", *(
        f"{u['step_ms_p50']:.2f}" if u and u["requests"] == x["requests"] else "-"
        for x, u in zip(cases, untraced))])
    names = [f"{x['group']}, {x['requests']} x {x['context']:,}" for x in cases]
    rates = [x["budget"]["copy_gb_s"] for x in cases]
    line = (f"The copy's rate is {min(rates):,.0f} GB/s. Commit "
            f"{', '.join(sorted({x['commit'] for x in cases}))}.")
    return rows_of(["us of a step / its floor", *names], rows) + ["", line]


def summary(r):
    """The README's table."""
    rows = []
    for context in (18432, LONG, 131072):
        cells = [r.rate(g, context) for g in (EAGER, SDPA, FLASHINFER, DENSE, "spectx", FP8)]
        ratios = [show_times(times(c, r.dense(context))) for c in cells[4:] if c]
        rows.append([f"{context:,}", *("" if c is None else number(c) for c in cells),
                     ", ".join(ratios)])
    table = rows_of(["cached tokens", "transformers eager", "sdpa", "FlashInfer", "our dense path",
                     "spectx", "with an fp8 host tier", "over the best dense"], rows)
    one, dense = (number(x) for x in (r.rate("spectx", 131072, single=True),
                                      r.dense(131072, single=True)))
    run = r.whole(*RUNS["[2k,32k]"])
    line = (f"One request of 131,072 tokens: {one} tokens/s, the best dense path {dense}. {run[2]} requests that "
            f"grow from 2k to 34k tokens: {number(run[0])}, the best dense path "
            f"{number(r.best_dense_run(*RUNS['[2k,32k]'])[0])}. {commits(r)[0].split(',')[0]}, "
            f"of the growing requests {r.growing()['commit']}.")
    return table + [""] + textwrap.wrap(line, 118, break_on_hyphens=False)


TABLES = {"asked": asked, "commits": commits, "best": lambda r: by_context(r, False), "one": lambda r: by_context(r, True),
          "misses": misses, "budget": step_budget, "others": others, "edge": edge, "whole": whole, "ablation": ablation,
          "growth": lambda r: growth(r.growing(), GROWTH),
          "growth-1b": lambda r: growth(r.runs["whole-1b-2k-32k"], GROWTH),
          "arrivals": arrivals, "check": check, "sweep": sweep, "prompts": prompts, "memory": memory, "beside": causes, "summary": summary}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("pages", nargs="+")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    results = Results(args.folder)

    def written(match):
        try:
            return "\n".join([match[1], "", *TABLES[match[2]](results), "", match[3]])
        except KeyError as error:  # a run whose file is not there
            print(f"{match[2]} stays as it is: {error} is missing", file=sys.stderr)
            return match[0]

    place = re.compile(r"(<!-- table: ([\w-]+) -->)\n.*?(<!-- end -->)", re.S)
    differs = False
    for page in args.pages:
        with open(page) as file:
            before = file.read()
        after = place.sub(written, before)
        differs = differs or after != before
        if not args.check:
            with open(page, "w") as file:
                file.write(after)
    sys.exit("the pages are not what the files say" if args.check and differs else 0)


if __name__ == "__main__":
    main()
