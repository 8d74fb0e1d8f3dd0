"""A tenth of the faces labelled: whether self-distillation on the rest wins back what that costs.

    python -m experiments.run few_labels --manual_dir DIR_OF_THE_ARCHIVE

A parser of all labels and one of a tenth of them are each trained further, on faces made like
photos; the latter also with the rest of the faces beside, without their labels. Self-distillation
lives on that augmentation: the average sees a face as it is, and the networks that learn see it
changed. All take about as many steps.
"""

from ml_collections import ConfigDict

from configs import whole_face
from experiments import scales
from experiments.ablation import SWITCHES
from experiments.trial import Evaluation, Runner, Trial, score, table

FACES = {"small": 688, "full": 24_183}
COLUMNS = ("mean", "overall", "mean_of_eight", "skin", "hair")
TENTH = 10
FURTHER = 2  # epochs, counted in all faces


def trials(scale: str) -> list[Trial]:
    """All labels and a tenth, each with joint training from there; and with the others besides."""
    every, few = FACES[scale], FACES[scale] // TENTH // 8 * 8
    distilled = _further(scale, few, TENTH)
    SWITCHES["distill"](distilled)
    distilled.distill.decay = 0.98
    distilled.dataset.unlabelled = f"{distilled.dataset.name}/train[{few}:{every}]"
    return [
        Trial("labels_all", _config(scale, every, 1)),
        Trial("labels_all_further", _further(scale, every, 1), "labels_all"),
        Trial("labels_few", _config(scale, few, TENTH)),
        Trial("labels_few_further", _further(scale, few, TENTH), "labels_few"),
        Trial("labels_few_distilled", distilled, "labels_few"),
    ]


def _config(scale: str, faces: int, times: int) -> ConfigDict:
    config = scales.whole(scale)
    config.dataset.train = f"train[:{faces}]"
    for stage in ("coarse", "localizer", "fine", "joint"):
        # Half as many epochs as on half of the faces.
        config[stage].epochs = -(-config[stage].epochs // 2) * times
    config.halve_every_epochs *= times
    return config


def _further(scale: str, faces: int, times: int) -> ConfigDict:
    config = whole_face.as_people_photograph(_config(scale, faces, times))
    config.augment = True
    config.stages = ("joint",)
    config.joint.epochs = FURTHER * times
    config.joint.lr_coarse = config.joint.lr_fine  # Here it, too, has much to learn yet.
    return config


def report(scale: str, runner: Runner) -> str:
    """The table, and the share of the loss that is won back."""
    found = {trial.name: runner.evaluate(trial, Evaluation()) for trial in trials(scale)}
    rows = [[name, *(score(one, column) for column in COLUMNS)] for name, one in found.items()]
    every, few, distilled = (
        [score(found[f"labels_{name}"], column) for column in COLUMNS]
        for name in ("all", "few", "few_distilled")
    )
    shares = [(c - b) / (a - b) for a, b, c in zip(every, few, distilled, strict=True)]
    return table(["F1", *COLUMNS], [*rows, ["won back of what few labels cost", *shares]])
