"""Curves of an experiment: a score over what was varied, for both croppers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure


def curves(
    path: Path, x: Sequence[float], lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str
) -> None:
    """Draws lines over shared places.

    Args:
        path: the picture to write.
        x: places along the axis.
        lines: name -> a value for each place.
        xlabel: what was varied.
        ylabel: what the values are.
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
