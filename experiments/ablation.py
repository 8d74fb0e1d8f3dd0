"""Ablation of the methods of other papers: each alone, all together, and the best subset.

    python -m experiments.run ablation --manual_dir DIR_OF_THE_ARCHIVE

All trials, including `none`, start from the same parser, which uses none of the methods, and train
it further with the same stages.
"""

from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from experiments import scales
from experiments.trial import Evaluation, Runner, Trial, score, table

BASE = "full_face"
SEEDS = (0, 1)
OCCLUDED = 2
# The methods that improve the validation scores alone, at the small scale.
BEST = ("consensus", "edges")
COLUMNS = {
    "mean F1 of 18": "mean",
    "overall": "overall",
    "mean of eight": "mean_of_eight",
    "skin": "skin",
    "hair": "hair",
    "boundary F": "boundary_f",
    "stray regions per face": "stray_regions_per_face",
}


def _consensus(config: ConfigDict) -> None:
    config.consensus.coarse = config.consensus.fine = 0.02
    config.consensus.warmup_epochs = 0.5


def _bridge(config: ConfigDict) -> None:
    config.model.bridge = True


def _attention(config: ConfigDict) -> None:
    config.model.attention = 2


def _edges(config: ConfigDict) -> None:
    config.edges.coarse = config.edges.fine = 0.5
    config.edges.task = 0.2
    config.model.edge_head = True


def _distill(config: ConfigDict) -> None:
    # Replaces joint training by the same stage with an EMA teacher.
    config.stages = (*config.stages[:-1], "distill")
    config.distill.epochs = config.joint.epochs
    for network in ("coarse", "localizer", "fine"):
        config.distill[f"lr_{network}"] = config.joint[f"lr_{network}"]
    config.distill.decay = 0.95


SWITCHES: dict[str, Callable[[ConfigDict], None]] = {
    "consensus": _consensus,
    "bridge": _bridge,
    "attention": _attention,
    "edges": _edges,
    "distill": _distill,
}


def trials(scale: str) -> list[Trial]:
    """Returns the base trial and the trials that start from it."""
    base = scales.nineteen(scale)
    base.stages = ("coarse", "localizer", "fine")
    result = [Trial(BASE, base), *(_further(scale, "none", (), seed) for seed in SEEDS)]
    result += [_further(scale, name, (name,), SEEDS[0]) for name in SWITCHES]
    result.append(_further(scale, "all", tuple(SWITCHES), SEEDS[0]))
    return [*result, *(_further(scale, "best", BEST, seed) for seed in SEEDS)]


def _further(scale: str, name: str, switches: Sequence[str], seed: int) -> Trial:
    config = scales.nineteen(scale)
    config.seed = seed
    config.stages = ("coarse", "fine", "joint")
    config.coarse.epochs, config.fine.epochs, config.joint.epochs = 3, 1, 1
    config.coarse.lr, config.fine.lr = 1e-3, 5e-4
    config.halve_every_epochs = 1.0
    for switch in switches:
        SWITCHES[switch](config)
    return Trial(f"{BASE}_{name}_{seed}", config, BASE)


def report(scale: str, runner: Runner) -> str:
    """Returns the table; its last rows are the differences between two seeds."""
    rows, scores = [], {}
    for trial in trials(scale)[1:]:
        visible = runner.evaluate(trial, Evaluation())
        occluded = runner.evaluate(trial, Evaluation(occlude=OCCLUDED))
        times = runner.times(trial)
        name = trial.name.removeprefix(f"{BASE}_")
        scores[name] = [score(visible, column) for column in COLUMNS.values()]
        scores[name].append(score(occluded, "mean_of_eight"))
        rows.append([name, *scores[name], times["step_ms"], times["parse_ms"]])
    for name in ("none", "best"):
        pair = (scores[f"{name}_{seed}"] for seed in SEEDS)
        differences = [abs(a - b) for a, b in zip(*pair, strict=True)]
        rows.append([f"{name}: difference between seeds", *differences, "", ""])
    head = ["", *COLUMNS, f"mean of eight, {OCCLUDED} parts occluded", "step, ms", "parse, ms"]
    return table(head, rows)
