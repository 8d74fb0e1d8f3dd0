"""Whether joint training gains with the best set of the ablation, by three seeds of that stage.

    python -m experiments.run joint_seeds --manual_dir DIR_OF_THE_ARCHIVE

The stages before it are those of the ablation's `best`, the same for all three.
"""

import numpy as np

from experiments import ablation
from experiments.baseline import BEFORE
from experiments.trial import Evaluation, Runner, Trial, score, table

SEEDS = (0, 1, 2)
START = f"{ablation.BASE}_best_{ablation.SEEDS[0]}"
COLUMNS = ("mean", "overall", "mean_of_eight", "skin", "hair", "window_error_px")


def trials(scale: str) -> list[Trial]:
    """What the best set starts from, itself, and the joint stage from its weights before that."""
    before = [trial for trial in ablation.trials(scale) if trial.name in (ablation.BASE, START)]
    return [*before, *(_joint(scale, seed) for seed in SEEDS)]


def _joint(scale: str, seed: int) -> Trial:
    (best,) = [trial for trial in ablation.trials(scale) if trial.name == START]
    config = best.config
    config.seed = seed
    config.stages = config.stages[-1:]
    # The stage is whole here: where the rates never fall, as in the ablation's single epoch, chance
    # in the last steps is as large as what is to be seen.
    config.joint.epochs, config.halve_every_epochs = 3, 0.5
    return Trial(f"joint_{seed}", config, f"{START}/{BEFORE}")


def report(scale: str, runner: Runner) -> str:
    """Scores before and after, and the mean gain of the three."""
    start, *joint = trials(scale)[1:]
    before = runner.evaluate(start, Evaluation(BEFORE))
    rows = [["before joint training", *(score(before, column) for column in COLUMNS)]]
    for trial in joint:
        after = runner.evaluate(trial, Evaluation())
        rows.append([f"after it, {trial.name}", *(score(after, column) for column in COLUMNS)])
    values = np.array([row[1:] for row in rows])
    rows.append(["mean gain", *map(float, np.mean(values[1:], axis=0) - values[0])])
    return table(["", *COLUMNS], rows)
