"""The gain of joint training with the best subset of the ablation, over three seeds of the stage.

    python -m experiments.run joint_seeds --manual_dir DIR_OF_THE_ARCHIVE

The three seeds share the earlier stages, those of the ablation's `best`. A fourth trial freezes the
coarse network and the localizer in that stage, to measure longer training of the fine networks
alone.
"""

import dataclasses

import numpy as np

from experiments import ablation
from experiments.baseline import BEFORE
from experiments.trial import Evaluation, Runner, Trial, score, table

SEEDS = (0, 1, 2)
START = f"{ablation.BASE}_best_{ablation.SEEDS[0]}"
COLUMNS = ("mean", "overall", "mean_of_eight", "skin", "hair", "window_error_px")


def trials(scale: str) -> list[Trial]:
    """Returns the trials up to `best`, and the joint stages that start before its joint stage."""
    before = [trial for trial in ablation.trials(scale) if trial.name in (ablation.BASE, START)]
    return [*before, *(_joint(scale, seed) for seed in SEEDS), _fine_alone(scale)]


def _joint(scale: str, seed: int) -> Trial:
    (best,) = [trial for trial in ablation.trials(scale) if trial.name == START]
    config = best.config
    config.seed = seed
    config.stages = config.stages[-1:]
    # Three epochs, so that the learning rates decay: in the ablation's single epoch they do not, so
    # the noise of the last steps is as large as the gain.
    config.joint.epochs, config.halve_every_epochs = 3, 0.5
    config.joint.warmup_epochs = 0.25  # Ends before the learning rates decay.
    return Trial(f"joint_{seed}", config, f"{START}/{BEFORE}")


def _fine_alone(scale: str) -> Trial:
    trial = _joint(scale, SEEDS[0])
    trial.config.joint.lr_coarse = trial.config.joint.lr_localizer = 0.0
    return dataclasses.replace(trial, name="joint_fine_alone")


def report(scale: str, runner: Runner) -> str:
    """Returns the scores, the mean gain of the seeds, and the gain of the fine networks alone."""
    start, *joint, fine_alone = trials(scale)[1:]

    def scores(trial: Trial, evaluation: Evaluation) -> np.ndarray:
        found = runner.evaluate(trial, evaluation)
        return np.array([score(found, column) for column in COLUMNS])

    before = scores(start, Evaluation(BEFORE))
    after = [scores(trial, Evaluation()) for trial in joint]
    alone = scores(fine_alone, Evaluation())
    rows = {
        "before joint training": before,
        **{f"after it, {trial.name}": row for trial, row in zip(joint, after, strict=True)},
        "mean gain": np.mean(after, axis=0) - before,
        "the fine networks alone, same number of steps": alone,
        "gain of the fine networks alone": alone - before,
    }
    return table(["", *COLUMNS], [[name, *map(float, row)] for name, row in rows.items()])
