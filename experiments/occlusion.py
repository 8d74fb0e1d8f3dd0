"""Figure 5 of the paper: F1 of both croppers by the number of occluded parts.

    python -m experiments.run occlusion

Occluded parts are missing from the coarse segmentation, so the centroid cropper misplaces windows.
"""

from experiments import plots, scales
from experiments.baseline import AFTER, BEFORE
from experiments.trial import Evaluation, Runner, Trial, score, table
from jax_stn_icnn.models.config import CENTROID

OCCLUDED = (0, 1, 2, 3)


def trials(scale: str) -> list[Trial]:
    """Returns the baseline's trial."""
    return [Trial("paper", scales.paper(scale))]


def report(scale: str, runner: Runner) -> str:
    """Returns the table of overall F1 and window error of both croppers, and writes a plot."""
    (trial,) = trials(scale)
    lines: dict[str, list[float]] = {}
    windows: dict[str, list[float]] = {}
    for name, how in (("centroid cropper", (BEFORE, CENTROID)), ("STN-iCNN", (AFTER, ""))):
        found = [runner.evaluate(trial, Evaluation(*how, occlude=count)) for count in OCCLUDED]
        lines[name] = [score(one, "overall") for one in found]
        windows[name] = [score(one, "window_error_px") for one in found]
    plots.curves(runner.folder / "occlusion.png", OCCLUDED, lines, "occluded parts", "F1")
    rows = [[f"{name}, F1 overall", *values] for name, values in lines.items()]
    rows += [[f"{name}, window error, px", *values] for name, values in windows.items()]
    return table(["occluded parts", *map(str, OCCLUDED)], rows)
