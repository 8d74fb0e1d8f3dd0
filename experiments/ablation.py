"""What each idea of the other papers gives: alone, all together, and the best set of them.

    python -m experiments.run ablation --manual_dir DIR_OF_THE_ARCHIVE

All start from the same parser, which has none of them, and are trained further by the same stages;
`none` likewise.
"""

from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from experiments import scales
from experiments.trial import Evaluation, Runner, Trial, score, table

BASE = "whole"
SEEDS = (0, 1)
OCCLUDED = 2
# What gained alone, by the validation faces at the small scale.
BEST = ("consensus", "edges")
COLUMNS = {
    "mean F1 of 18": "mean",
    "overall": "overall",
    "mean of eight": "mean_of_eight",
    "skin": "skin",
    "hair": "hair",
    "boundary F": "boundary_f",
    "stray regions a face": "stray_regions_per_face",
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


def _distill(config: ConfigDict) -> None:
    # In place of joint training: the same stage, with the average beside it.
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
    """The parser that all start from, and those."""
    base = scales.whole(scale)
    base.stages = ("coarse", "localizer", "fine")
    made = [Trial(BASE, base), *(_further(scale, "none", (), seed) for seed in SEEDS)]
    made += [_further(scale, name, (name,), SEEDS[0]) for name in SWITCHES]
    made.append(_further(scale, "all", tuple(SWITCHES), SEEDS[0]))
    return [*made, *(_further(scale, "best", BEST, seed) for seed in SEEDS)]


def _further(scale: str, name: str, switches: Sequence[str], seed: int) -> Trial:
    config = scales.whole(scale)
    config.seed = seed
    config.stages = ("coarse", "fine", "joint")
    config.coarse.epochs, config.fine.epochs, config.joint.epochs = 3, 1, 1
    config.coarse.lr, config.fine.lr = 1e-3, 5e-4
    config.halve_every_epochs = 1.0
    for switch in switches:
        SWITCHES[switch](config)
    return Trial(f"whole_{name}_{seed}", config, BASE)


def report(scale: str, runner: Runner) -> str:
    """The table; how far two seeds are apart stands in its last rows."""
    rows, found = [], {}
    for trial in trials(scale)[1:]:
        plain = runner.evaluate(trial, Evaluation())
        covered = runner.evaluate(trial, Evaluation(occlude=OCCLUDED))
        times = runner.times(trial)
        name = trial.name.removeprefix(f"{BASE}_")
        found[name] = [score(plain, column) for column in COLUMNS.values()]
        found[name].append(score(covered, "mean_of_eight"))
        rows.append([name, *found[name], times["step_ms"], times["parse_ms"]])
    for name in ("none", "best"):
        pair = (found[f"{name}_{seed}"] for seed in SEEDS)
        apart = [abs(a - b) for a, b in zip(*pair, strict=True)]
        rows.append([f"{name}: seeds apart by", *apart, "", ""])
    head = ["", *COLUMNS, f"mean of eight, {OCCLUDED} covered", "step, ms", "parse, ms"]
    return table(head, rows)
