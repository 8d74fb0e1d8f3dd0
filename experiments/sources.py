"""Ablation of the training data: each further data set alone, a pretrained encoder, and all.

The last trials have a tenth of the labelled faces, without and with the further data sets.

    python -m experiments.run sources --manual_dir DIR_OF_THE_ARCHIVES

Trains the coarse network only, which predicts all classes, with the same number of steps in every
trial. The archives are those of CelebAMask-HQ and of the data sets in SOURCES, in the project's
folder format. Scores are those of the coarse segmentation.
"""

from collections.abc import Iterable

from configs import common
from experiments import scales
from experiments.trial import Evaluation, Runner, Scores, Trial, table

SEEDS = (0, 1)
FEW = 69  # labelled faces of the last two trials
# Name -> split, framing, and weight relative to CelebAMask-HQ.
SOURCES = {
    "celeb_hair": ("train", "resize", 0.5),
    "lfw_parts": ("train", "face", 0.3),
    "figaro": ("train[:737]", "face", 0.3),
    "street": ("train[:878]", "face", 0.3),
    "face_synthetics": ("train", "resize", 0.2),
}
VALIDATION = {
    "figaro": Evaluation(dataset="figaro", split="train[737:]"),
    "lfw_parts": Evaluation(dataset="lfw_parts", split="validation[:200]"),
}
CLASSES = (
    "mean",
    "hair",
    "skin",
    "mean_of_eight",
    "earring",
    "necklace",
    "glasses",
    "hat",
    "cloth",
)


def trials(scale: str) -> list[Trial]:
    """Returns the trials: first and last with two seeds, the others with one."""
    result = [_trial(scale, "faces_only", (), seed=seed) for seed in SEEDS]
    result += [_trial(scale, name, (name,)) for name in SOURCES]
    result.append(_trial(scale, "encoder", (), encoder=True))
    result += [_trial(scale, "all", tuple(SOURCES), encoder=True, seed=seed) for seed in SEEDS]
    few = [_trial(scale, "few", (), encoder=True), _trial(scale, "few_all", SOURCES, encoder=True)]
    for trial in few:
        trial.config.dataset.train = f"train[:{FEW}]"
        # As many steps as half of the other trials.
        trial.config.coarse.epochs *= 5
        trial.config.halve_every_epochs *= 5
    return result + few


def _trial(
    scale: str, name: str, sources: Iterable[str], encoder: bool = False, seed: int = 0
) -> Trial:
    config = scales.nineteen(scale)
    config.seed = seed
    config.stages = ("coarse",)
    config.dataset.train = "train"
    for source in sources:
        split, framing, weight = SOURCES[source]
        config.dataset.sources[source] = common.source(source, weight, split, framing)
    if encoder:
        config.model.coarse_stride = 2
        config.model.coarse_network = "efficientnet_lite0"
        config.init_encoder = "imagenet"
        config.coarse.encoder_lr_factor = 0.3
    return Trial(f"sources_{name}_{seed}", config)


def report(scale: str, runner: Runner) -> str:
    """Returns the table: F1 on the test split, and of hair on two other data sets."""
    rows = []
    for trial in trials(scale):
        scores = _coarse(runner.evaluate(trial, Evaluation()))
        others = [_coarse(runner.evaluate(trial, one))["hair"] for one in VALIDATION.values()]
        row = [scores[name] for name in CLASSES]
        rows.append([trial.name.removeprefix("sources_"), *row, *others])
    heads = [name.replace("_", " ") for name in CLASSES]
    return table(["F1", *heads, *(f"hair, {name}" for name in VALIDATION)], rows)


def _coarse(scores: Scores) -> dict[str, float]:
    return {
        name: float("nan") if value is None else value
        for name, value in scores["coarse_f1"].items()
    }
