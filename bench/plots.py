"""The benchmarks' plots, as PNG."""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def by_streams(found, figure, title, path):
    """Plot one line per server against the number of streams."""
    canvas, axes = pyplot.subplots(figsize=(7, 4), dpi=110)
    for side in next(iter(found.values())):
        axes.plot(list(found), [found[streams][side][figure] for streams in found], marker="o", label=side)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(list(found), [str(streams) for streams in found])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("streams")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.tight_layout()
    canvas.savefig(path)
    pyplot.close(canvas)
