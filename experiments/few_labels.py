"""Self-distillation with a tenth of the labels: the fraction of the lost F1 that it recovers.

    python -m experiments.run few_labels --manual_dir DIR_OF_THE_ARCHIVE

Two parsers, trained with all labels and with a tenth of them, are trained further with photometric
augmentation; the second one also with the remaining faces, without their labels. Self-distillation
depends on that augmentation: the EMA teacher is given the original face, the student the augmented
one. All trials take about the same number of steps.
"""

from ml_collections import ConfigDict

from configs import full_face
from experiments import scales
from experiments.ablation import SWITCHES
from experiments.trial import Evaluation, Runner, Trial, score, table

FACES = {"small": 688, "full": 24_183}
COLUMNS = ("mean", "overall", "mean_of_eight", "skin", "hair")
TENTH = 10
FURTHER_EPOCHS = 2  # of all faces


def trials(scale: str) -> list[Trial]:
    """Returns a trial of all labels and one of a tenth, and the further training of each."""
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
    config = scales.nineteen(scale)
    config.dataset.train = f"train[:{faces}]"
    for stage in ("coarse", "localizer", "fine", "joint"):
        # The schedule is for half of the faces; all faces take half as many epochs.
        config[stage].epochs = -(-config[stage].epochs // 2) * times
    config.halve_every_epochs *= times
    return config


def _further(scale: str, faces: int, times: int) -> ConfigDict:
    config = full_face.augment_photos(_config(scale, faces, times))
    config.augment = True
    config.stages = ("joint",)
    config.joint.epochs = FURTHER_EPOCHS * times
    config.joint.lr_coarse = config.joint.lr_fine  # The coarse network is not converged either.
    return config


def report(scale: str, runner: Runner) -> str:
    """Returns the table, and the fraction of the lost F1 that self-distillation recovers."""
    rows = {}
    for trial in trials(scale):
        scores = runner.evaluate(trial, Evaluation())
        rows[trial.name] = [score(scores, column) for column in COLUMNS]
    every, few, distilled = (rows[f"labels_{name}"] for name in ("all", "few", "few_distilled"))
    rows["fraction of the loss recovered"] = [
        (c - b) / (a - b) for a, b, c in zip(every, few, distilled, strict=True)
    ]
    return table(["F1", *COLUMNS], [[name, *scores] for name, scores in rows.items()])
