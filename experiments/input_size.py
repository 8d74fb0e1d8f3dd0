"""Figure 6 of the paper: F1 by the size of the coarse network's input.

    python -m experiments.run input_size

In the paper, a change from 64 to 128 pixels has a small effect on the centroid cropper and a large
one on STN-iCNN.
"""

from experiments import plots, scales
from experiments.baseline import AFTER, BEFORE
from experiments.trial import Evaluation, Runner, Trial, score, table
from jax_stn_icnn.models.config import CENTROID

SIZES = (64, 96, 128)


def trials(scale: str) -> list[Trial]:
    """Returns one trial per size; the trial of 128 is the baseline's."""
    result = []
    for size in SIZES:
        config = scales.paper(scale)
        config.model.coarse_size = size
        result.append(Trial("paper" if size == 128 else f"input_{size}", config))
    return result


def report(scale: str, runner: Runner) -> str:
    """Returns the table of overall F1 of both croppers, and writes a plot."""
    lines: dict[str, list[float]] = {"centroid cropper": [], "STN-iCNN": []}
    for trial in trials(scale):
        for name, how in zip(lines, (Evaluation(BEFORE, CENTROID), Evaluation(AFTER)), strict=True):
            lines[name].append(score(runner.evaluate(trial, how), "overall"))
    plots.curves(
        runner.folder / "input_size.png", SIZES, lines, "side of the coarse image, px", "F1"
    )
    rows = [[name, *values] for name, values in lines.items()]
    return table(["F1 overall, coarse image of", *map(str, SIZES)], rows)
