"""Figure 7 of the paper: F1 by the size of the patches.

    python -m experiments.run patch_size

Patches have odd sides, as the paper recommends, so that their centres are on pixel centres.
"""

from experiments import plots, scales
from experiments.baseline import AFTER, BEFORE
from experiments.trial import Evaluation, Runner, Trial, score, table
from jax_stn_icnn.models.config import CENTROID

SIZES = {"small": (37, 45, 53, 61), "full": (95, 111, 127, 143)}


def trials(scale: str) -> list[Trial]:
    """Returns one trial per size; the trial of the config's size is the baseline's."""
    result = []
    for size in SIZES[scale]:
        config = scales.paper(scale)
        default = config.model.patch_size
        config.model.patch_size = size
        result.append(Trial("paper" if size == default else f"patch_{size}", config))
    return result


def report(scale: str, runner: Runner) -> str:
    """Returns the table of overall F1 of both croppers, and writes a plot."""
    sizes = SIZES[scale]
    lines: dict[str, list[float]] = {"centroid cropper": [], "STN-iCNN": []}
    for trial in trials(scale):
        for name, how in zip(lines, (Evaluation(BEFORE, CENTROID), Evaluation(AFTER)), strict=True):
            lines[name].append(score(runner.evaluate(trial, how), "overall"))
    plots.curves(runner.folder / "patch_size.png", sizes, lines, "side of the patches, px", "F1")
    rows = [[name, *values] for name, values in lines.items()]
    return table(["F1 overall, patches of", *map(str, sizes)], rows)
