# SPDX-License-Identifier: Apache-2.0
"""Bar charts as SVG, without any package."""
import math

COLOURS = ["#1b6ca8", "#8fb8d8", "#d98324", "#7a9e4c", "#a05195", "#777777", "#c9b458", "#4a4a4a"]
WIDTH, HEIGHT, LEFT, BASE, TOP = 760, 360, 60, 300, 40


def ticks(bottom, top, is_logarithmic):
    if is_logarithmic:
        tick = 10 ** math.floor(math.log10(bottom))
        while tick < top:
            yield from (v for v in (tick, 2 * tick, 5 * tick) if bottom < v < top)
            tick *= 10
        return
    step = 10 ** math.floor(math.log10(top))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if top / s <= 6)
    yield from (step * i for i in range(1, int(top / step) + 1))


def bars(path, title, values, places, groups, is_logarithmic=False, line=None):
    """Bars by place, one colour a group. `values`: number by (group, place), where there is one.
    `line`: (number, what it is), drawn across."""
    numbers = list(values.values()) + ([line[0]] if line else [])
    span = (WIDTH - LEFT - 10) / len(places)
    bar = span * 0.85 / len(groups)
    texts = {at: f"{v:.{0 if v >= 20 else 1}f}" for at, v in values.items()}
    is_turned = 5.5 * max(map(len, texts.values())) > bar  # the numbers stand upright on their bars
    top = max(numbers) * (1.3 if is_logarithmic else 1.1) * (1.2 if is_turned else 1)
    bottom = min(numbers) / 1.5 if is_logarithmic else 0

    def y(v):
        share = math.log(v / bottom) / math.log(top / bottom) if is_logarithmic else v / top
        return BASE - (BASE - TOP) * share

    height = max(HEIGHT, BASE + 40 + 15 * ((len(groups) - 1) // 3))  # three names of groups a line
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
             'font-family="sans-serif" font-size="11">',
             f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
             f'<text x="{LEFT}" y="20" font-size="13">{title}</text>']
    for v in ticks(bottom, top, is_logarithmic):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y(v):.1f}" y2="{y(v):.1f}" '
                     f'stroke="#ddd"/><text x="{LEFT - 6}" y="{y(v) + 4:.1f}" '
                     f'text-anchor="end">{v:g}</text>')
    for i, place in enumerate(places):
        parts.append(f'<text x="{LEFT + span * (i + 0.45):.1f}" y="{BASE + 16}" '
                     f'text-anchor="middle">{place}</text>')
        for j, group in enumerate(groups):
            v = values.get((group, place))
            if v is None:
                continue
            x = LEFT + span * i + bar * j
            at_x, at_y = x + bar * 0.45, y(v) - 3
            how = (f'transform="translate({at_x + 3:.1f} {at_y:.1f}) rotate(-90)"' if is_turned else
                   f'x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="middle"')
            parts.append(f'<rect x="{x:.1f}" y="{y(v):.1f}" width="{bar * 0.9:.1f}" '
                         f'height="{BASE - y(v):.1f}" fill="{COLOURS[j % len(COLOURS)]}"/>'
                         f'<text {how} font-size="9">{texts[group, place]}</text>')
    if line:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y(line[0]):.1f}" '
                     f'y2="{y(line[0]):.1f}" stroke="#b00" stroke-dasharray="5 3"/>'
                     f'<text x="{WIDTH - 12}" y="{y(line[0]) - 4:.1f}" text-anchor="end" '
                     f'fill="#b00">{line[1]}</text>')
    for j, group in enumerate(groups):
        x, at = LEFT + (j % 3) * 235, BASE + 34 + 15 * (j // 3)
        parts.append(f'<rect x="{x}" y="{at - 9}" width="10" height="10" '
                     f'fill="{COLOURS[j % len(COLOURS)]}"/><text x="{x + 14}" y="{at}">{group}</text>')
    with open(path, "w") as file:
        file.write("\n".join(parts) + "\n</svg>\n")
