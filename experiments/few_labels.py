"""A tenth of the faces labelled: whether self-distillation on the rest wins back what that costs.

    python -m experiments.run few_labels --manual_dir DIR_OF_THE_ARCHIVE

All take about as many steps, but for the parser that the last two start from. The rest of the
faces, without their labels, lie beside the labelled ones in the last stage, or do not.
"""

from ml_collections import ConfigDict

from experiments import scales
from experiments.ablation import SWITCHES
from experiments.trial import Evaluation, Runner, Trial, score, table

FACES = {"small": 688, "full": 24_183}
COLUMNS = ("mean", "overall", "mean_of_eight", "skin", "hair")
TENTH = 10
FURTHER = 2  # epochs, counted in all faces


def trials(scale: str) -> list[Trial]:
    """All labels; a tenth; and from the latter on, the same faces or the others besides."""
    few = FACES[scale] // TENTH // 8 * 8
    every, tenth = _config(scale, FACES[scale], 1), _config(scale, few, TENTH)
    every.joint.epochs += FURTHER
    further = [_config(scale, few, TENTH) for _ in range(2)]
    for config in further:
        config.stages = ("joint",)
        config.joint.epochs = FURTHER * TENTH
    SWITCHES["distill"](further[1])
    further[1].distill.decay = 0.98
    further[1].dataset.unlabelled = f"{further[1].dataset.name}/train[{few}:{FACES[scale]}]"
    return [
        Trial("labels_all", every),
        Trial("labels_few", tenth),
        Trial("labels_few_further", further[0], "labels_few"),
        Trial("labels_few_distilled", further[1], "labels_few"),
    ]


def _config(scale: str, faces: int, times: int) -> ConfigDict:
    config = scales.whole(scale)
    config.dataset.train = f"train[:{faces}]"
    for stage in ("coarse", "localizer", "fine", "joint"):
        # Half as many epochs as on half of the faces.
        config[stage].epochs = -(-config[stage].epochs // 2) * times
    config.halve_every_epochs *= times
    return config


def report(scale: str, runner: Runner) -> str:
    """The table, and the share of the loss that is won back."""
    found = {trial.name: runner.evaluate(trial, Evaluation()) for trial in trials(scale)}
    rows = [[name, *(score(one, column) for column in COLUMNS)] for name, one in found.items()]
    every, few, distilled = (
        [score(found[f"labels_{name}"], column) for column in COLUMNS]
        for name in ("all", "few_further", "few_distilled")
    )
    shares = [(c - b) / (a - b) for a, b, c in zip(every, few, distilled, strict=True)]
    return table(["F1", *COLUMNS], [*rows, ["won back of what few labels cost", *shares]])
