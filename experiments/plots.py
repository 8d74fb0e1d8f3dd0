"""Plots of an experiment: a score by a varied quantity, for both croppers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure


def curves(
    path: Path, x: Sequence[float], lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str
) -> None:
    """Writes a line plot.

    Args:
        path: the image file to write.
        x: the values of the varied quantity.
        lines: for each name, one value per element of `x`.
        xlabel: name of the varied quantity.
        ylabel: name of the values.
    """
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, values in lines.items():
        axes.plot(x, values, marker="o", label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel, xticks=list(x))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
