"""Figure 7 of the paper: how large the patches are.

    python -m experiments.run patch_size

Patches have odd sides here, as the paper recommends, so that windows fall on whole pixels.
"""

from experiments import plots, scales
from experiments.baseline import AFTER, BEFORE
from experiments.trial import Evaluation, Runner, Trial, score, table
from jax_stn_icnn.models.pipeline import CENTROID

SIZES = {"small": (37, 45, 53, 61), "full": (95, 111, 127, 143)}


def trials(scale: str) -> list[Trial]:
    """One for each size; that of the config is the baseline's."""
    made = []
    for size in SIZES[scale]:
        config = scales.paper(scale)
        usual = config.model.patch_size
        config.model.patch_size = size
        made.append(Trial("paper" if size == usual else f"patch_{size}", config))
    return made


def report(scale: str, runner: Runner) -> str:
    """Overall F1 of both croppers, as a table and a plot."""
    sizes = SIZES[scale]
    lines: dict[str, list[float]] = {"centroid cropper": [], "STN-iCNN": []}
    for trial in trials(scale):
        for name, how in zip(lines, (Evaluation(BEFORE, CENTROID), Evaluation(AFTER)), strict=True):
            lines[name].append(score(runner.evaluate(trial, how), "overall"))
    plots.curves(runner.folder / "patch_size.png", sizes, lines, "side of the patches, px", "F1")
    rows = [[name, *values] for name, values in lines.items()]
    return table(["F1 overall, patches of", *map(str, sizes)], rows)
