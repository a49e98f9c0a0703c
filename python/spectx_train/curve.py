# SPDX-License-Identifier: Apache-2.0
"""The loss over the steps as a picture."""

import sys

from .head import replace_file


def draw(path, history, names):
    """history: [[step, loss of each name...], ...]; says so where matplotlib is missing."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print(f"{path} was not drawn: matplotlib is not installed", file=sys.stderr)
        return
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    steps = [row[0] for row in history]
    for i, name in enumerate(names):
        axes.plot(steps, smooth([row[i + 1] for row in history]), label=name, linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (terms differ between objectives)")
    axes.legend()
    axes.grid(alpha=0.3)
    replace_file(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))
    pyplot.close(figure)


def smooth(values, share=0.9):
    """Running mean, so that a batch's chance does not hide the course."""
    out, mean = [], None
    for value in values:
        mean = value if mean is None else share * mean + (1 - share) * value
        out.append(mean)
    return out
