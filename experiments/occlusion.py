"""Figure 5 of the paper: parts of the face covered, and what each cropper makes of it.

    python -m experiments.run occlusion

Covered parts are missing from the rough mask, and the centroid cropper loses their windows.
"""

from experiments import plots, scales
from experiments.baseline import AFTER, BEFORE
from experiments.trial import Evaluation, Runner, Trial, score, table
from jax_stn_icnn.models.pipeline import CENTROID

COVERED = (0, 1, 2, 3)


def trials(scale: str) -> list[Trial]:
    """The baseline's."""
    return [Trial("paper", scales.paper(scale))]


def report(scale: str, runner: Runner) -> str:
    """Overall F1 and window error of both croppers by the number of covered parts."""
    (trial,) = trials(scale)
    lines: dict[str, list[float]] = {}
    windows: dict[str, list[float]] = {}
    for name, how in (("centroid cropper", (BEFORE, CENTROID)), ("STN-iCNN", (AFTER, ""))):
        found = [runner.evaluate(trial, Evaluation(*how, occlude=count)) for count in COVERED]
        lines[name] = [score(one, "overall") for one in found]
        windows[name] = [score(one, "window_error_px") for one in found]
    plots.curves(runner.folder / "occlusion.png", COVERED, lines, "parts covered", "F1")
    rows = [[f"{name}, F1 overall", *values] for name, values in lines.items()]
    rows += [[f"{name}, windows off by, px", *values] for name, values in windows.items()]
    return table(["parts covered", *map(str, COVERED)], rows)
