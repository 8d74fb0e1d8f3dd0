"""Figure 6 of the paper: how large the picture is that the coarse network sees.

    python -m experiments.run input_size

The paper: from 64 to 128 pixels changes little for the centroid cropper, and much for STN-iCNN.
"""

from experiments import plots, scales
from experiments.baseline import AFTER, BEFORE
from experiments.trial import Evaluation, Runner, Trial, score, table
from jax_stn_icnn.models.pipeline import CENTROID

SIZES = (64, 96, 128)


def trials(scale: str) -> list[Trial]:
    """One for each size; that of 128 is the baseline's."""
    made = []
    for size in SIZES:
        config = scales.paper(scale)
        config.model.coarse_size = size
        made.append(Trial("paper" if size == 128 else f"input_{size}", config))
    return made


def report(scale: str, runner: Runner) -> str:
    """Overall F1 of both croppers, as a table and a plot."""
    lines: dict[str, list[float]] = {"centroid cropper": [], "STN-iCNN": []}
    for trial in trials(scale):
        for name, how in zip(lines, (Evaluation(BEFORE, CENTROID), Evaluation(AFTER)), strict=True):
            lines[name].append(score(runner.evaluate(trial, how), "overall"))
    plots.curves(
        runner.folder / "input_size.png", SIZES, lines, "side of the coarse image, px", "F1"
    )
    rows = [[name, *values] for name, values in lines.items()]
    return table(["F1 overall, coarse image of", *map(str, SIZES)], rows)
