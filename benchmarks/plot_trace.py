#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws one step of a trace, a lane for each of the device's streams, as SVG.

plot_trace.py TRACE.json OUT.svg [--step N] [--title TEXT]
"""
import argparse
import json
from html import escape

WIDTH, LEFT, LANE = 860, 90, 46
COLOURS = {"step": "#4c72b0", "wait": "#c44e52", "gather": "#dd8452", "warm": "#55a868",
           "move": "#8172b3", "write_through": "#64b5cd"}


def load(path, number):
    """The step's span and the device's spans that lie in it, by lane."""
    with open(path) as file:
        events = json.load(file)["traceEvents"]
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    spans = [dict(e, lane=lanes[e["tid"]].removeprefix("device, ")) for e in events
             if e["ph"] == "X" and lanes[e["tid"]].startswith("device, ")]
    steps = [s for s in spans if s["name"].endswith("::step")]
    step = sorted(steps, key=lambda s: s["ts"])[number]
    end = step["ts"] + step["dur"]
    return step, [s for s in spans if step["ts"] <= s["ts"] < end]


def draw(step, spans, title):
    scale = (WIDTH - LEFT - 20) / step["dur"]
    out = [f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>']
    names = [n for n in ("compute", "copy", "warm", "move") if n in {s["lane"] for s in spans}]
    for i, name in enumerate(names):
        y = 36 + i * (LANE + 14)
        out.append(f'<text x="8" y="{y + LANE / 2 + 4}">{name}</text>')
        for s in (s for s in spans if s["lane"] == name):
            kind = s["name"].split("::")[1]
            x = LEFT + (s["ts"] - step["ts"]) * scale
            width = max(s["dur"] * scale, 1)
            out.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LANE}" '
                       f'fill="{COLOURS[kind]}" stroke="white"/>')
            group = s.get("args", {}).get("group")
            label = kind if group is None else f"{kind} {group}"
            if width > 70:
                out.append(f'<text x="{x + 6:.1f}" y="{y + 20}" fill="white">{label}</text>'
                           f'<text x="{x + 6:.1f}" y="{y + 37}" fill="white">'
                           f'{s["dur"] / 1000:.2f} ms</text>')
    for ms in range(int(step["dur"] / 1000) + 1):
        x = LEFT + ms * 1000 * scale
        out.append(f'<text x="{x:.1f}" y="{36 + len(names) * (LANE + 14) + 6}">{ms} ms</text>')
    height = 36 + len(names) * (LANE + 14) + 18
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'font-family="sans-serif" font-size="13">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(out) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace")
    parser.add_argument("out")
    parser.add_argument("--step", type=int, default=2)
    parser.add_argument("--title", default="a step on the device")
    args = parser.parse_args()
    with open(args.out, "w") as file:
        file.write(draw(*load(args.trace, args.step), args.title))


main()
