"""What a run's config may say, checked before anything starts, and what follows from it.

A config is an `ml_collections.ConfigDict`; `configs/common.py` shows every field with its meaning.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jax_stn_icnn import anatomy
from jax_stn_icnn.data.photometric import Strengths
from jax_stn_icnn.models.config import CENTROID, ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train.stages import NETWORKS, PIXEL_LOSSES, REGIONS, STAGES

# What may differ between a run and its continuation: nothing of it reaches the parameters.
FREE_FIELDS = (
    "checkpoint.every_steps",
    "checkpoint.keep",
    "dataset.data_dir",
    "dataset.manual_dir",
    "dataset.test",
    "dataset.num_workers",
    "eval_batch_size",
    "pictures",
)


class _Rule(NamedTuple):
    """What a field must be: a test of its value, and the test in words."""

    fits: Callable[[Any], bool]
    words: str


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(lowest: int) -> _Rule:
    return _Rule(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= lowest,
        f"a whole number of at least {lowest}",
    )


def _one_of(*words: str) -> _Rule:
    return _Rule(lambda value: value in words, f"one of {', '.join(words)}")


def _some_of(words: tuple[str, ...]) -> _Rule:
    return _Rule(
        lambda value: (
            isinstance(value, tuple | list)
            and len(value) > 0
            and list(value) == [word for word in words if word in value]
        ),
        f"one or more of {words}, in this order",
    )


_TEXT = _Rule(lambda value: isinstance(value, str), "text")
_NAME = _Rule(lambda value: isinstance(value, str) and value != "", "text, not empty")
_FLAG = _Rule(lambda value: isinstance(value, bool), "True or False")
_POSITIVE = _Rule(lambda value: _number(value) and value > 0, "a number above 0")
_NOT_NEGATIVE = _Rule(lambda value: _number(value) and value >= 0, "a number of at least 0")
_SHARE = _Rule(lambda value: _number(value) and 0 <= value <= 1, "a number in 0..1")

FIELDS: dict[str, _Rule] = {
    "seed": _Rule(
        lambda value: _whole(0).fits(value) and value < 2**32, "a whole number in 0..2**32 - 1"
    ),
    "dataset.name": _Rule(
        lambda value: value in anatomy.DATA_SETS,
        "the name of a data set, one of this package or one that the config's file registers",
    ),
    "dataset.data_dir": _NAME,
    "dataset.manual_dir": _TEXT,
    "dataset.train": _NAME,
    "dataset.validation": _NAME,
    "dataset.test": _NAME,
    "dataset.unlabelled": _TEXT,
    "dataset.frame_size": _whole(2),
    "dataset.num_workers": _whole(0),
    "init_from": _TEXT,
    "init_networks": _some_of(NETWORKS),
    "batch_size": _whole(1),
    "eval_batch_size": _whole(1),
    "augment": _FLAG,
    "mirror": _FLAG,
    **{
        f"photo.{field.name}": _SHARE if field.name == "grayscale" else _NOT_NEGATIVE
        for field in dataclasses.fields(Strengths)
    },
    "stages": _some_of(STAGES),
    "halve_every_epochs": _POSITIVE,
    "part_weights": _Rule(
        lambda value: isinstance(value, tuple | list) and all(map(_NOT_NEGATIVE.fits, value)),
        "numbers of at least 0, one for each part",
    ),
    "coarse.epochs": _whole(0),
    "coarse.lr": _POSITIVE,
    "coarse.loss": _one_of(*PIXEL_LOSSES),
    "localizer.epochs": _whole(0),
    "localizer.lr": _POSITIVE,
    "fine.epochs": _whole(0),
    "fine.lr": _POSITIVE,
    "fine.jitter": _whole(0),
    "joint.epochs": _whole(0),
    "joint.lr_coarse": _NOT_NEGATIVE,
    "joint.lr_localizer": _NOT_NEGATIVE,
    "joint.lr_fine": _NOT_NEGATIVE,
    "joint.warmup_epochs": _NOT_NEGATIVE,
    "joint.coarse_weight": _NOT_NEGATIVE,
    "joint.localizer_weight": _NOT_NEGATIVE,
    "distill.epochs": _whole(0),
    "distill.lr_coarse": _NOT_NEGATIVE,
    "distill.lr_localizer": _NOT_NEGATIVE,
    "distill.lr_fine": _NOT_NEGATIVE,
    "distill.weight": _NOT_NEGATIVE,
    "distill.decay": _SHARE,
    "consensus.coarse": _NOT_NEGATIVE,
    "consensus.fine": _NOT_NEGATIVE,
    "consensus.regions": _one_of(*REGIONS),
    "consensus.alpha": _NOT_NEGATIVE,
    "consensus.beta": _NOT_NEGATIVE,
    "consensus.warmup_epochs": _NOT_NEGATIVE,
    "edges.coarse": _NOT_NEGATIVE,
    "edges.fine": _NOT_NEGATIVE,
    "edges.within": _whole(0),
    "edges.task": _NOT_NEGATIVE,
    "checkpoint.every_steps": _whole(0),
    "checkpoint.keep": _whole(1),
    "pictures": _whole(0),
}


def check(config: ConfigDict) -> None:
    """Checks a config; the message lists all problems.

    Args:
        config: The config.

    Raises:
        ValueError: Fields are unknown, missing or impossible, or contradict each other.
    """
    values = flatten(config)
    values = {name: value for name, value in values.items() if not name.startswith("model.")}
    problems = [f"{name} is not a field" for name in values if name not in FIELDS]
    problems += [f"{name} is missing" for name in FIELDS if name not in values]
    problems += [
        f"{name} is {values[name]!r}, but must be {rule.words}"
        for name, rule in FIELDS.items()
        if name in values and not rule.fits(values[name])
    ]
    try:
        model = model_config(config)
    except ValueError as error:
        problems.append(f"model: {error}")
    if not problems:
        problems = _contradictions(values, model)
    if problems:
        raise ValueError("the config is wrong:\n  " + "\n  ".join(problems))


def model_config(config: ConfigDict) -> ModelConfig:
    """Returns the model's options in a config.

    Raises:
        ValueError: An option is unknown, impossible or contradicts another one.
    """
    return ModelConfig.from_dict(config.model.to_dict() if "model" in config else {})


def make_model(config: ConfigDict) -> STNiCNN:
    """Returns the model of a config."""
    return STNiCNN(model_config(config))


def _contradictions(values: Mapping[str, Any], model: ModelConfig) -> list[str]:
    """Returns a line for each pair of fields that exclude each other."""
    problems = []
    try:
        anatomy.data_set_class_ids(model.anatomy, values["dataset.name"])
    except ValueError as error:
        problems.append(f"model.anatomy and dataset.name do not match: {error}")
    largest = max(max(size) for size in model.patch_sizes)
    if largest > values["dataset.frame_size"]:
        problems.append(
            f"model.patch_size is {model.patch_size}, and the largest window has {largest} pixels "
            f"a side, but the frame has only dataset.frame_size = {values['dataset.frame_size']}"
        )
    if (values["edges.task"] > 0) != model.edge_head:
        problems.append(
            f"edges.task is {values['edges.task']} and model.edge_head is {model.edge_head}, but "
            "an edge task needs an edge head, and an edge head learns from an edge task only"
        )
    if len(values["part_weights"]) != model.anatomy.num_parts:
        problems.append(
            f"part_weights holds {len(values['part_weights'])} numbers, but the anatomy "
            f"{model.anatomy.name!r} has {model.anatomy.num_parts} parts"
        )
    if model.cropper == CENTROID and "localizer" in values["stages"]:
        problems.append(
            f"stages holds 'localizer', but model.cropper = {CENTROID!r} has none to train"
        )
    if not sum(values[f"{stage}.epochs"] for stage in values["stages"]):
        problems.append(f"every stage of stages = {values['stages']} has 0 epochs")
    for stage in ("joint", "distill"):
        learning = [n for n in NETWORKS if n != "localizer" or model.cropper != CENTROID]
        if not any(values[f"{stage}.lr_{network}"] for network in learning):
            rates = ", ".join(f"{stage}.lr_{network}" for network in learning)
            problems.append(f"{rates} are all 0: no network would learn")
    if values["dataset.unlabelled"] and "distill" not in values["stages"]:
        problems.append(
            f"dataset.unlabelled is {values['dataset.unlabelled']!r}, but only the stage 'distill' "
            "learns from images without labels"
        )
    return problems


def make_strengths(config: ConfigDict) -> Strengths:
    """How strongly a config makes training examples like photos as people take them."""
    return Strengths(**config.photo)


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of every field.

    Args:
        config: a config, or a mapping such as its JSON gives, nested to any depth.
        prefix: what stands in front of all names, with its dot.

    Returns:
        The fields, in the order of the config.
    """
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def to_json(config: ConfigDict) -> str:
    """The config as JSON, fields in order."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def differences(config: ConfigDict, earlier: Mapping[str, Any]) -> list[str]:
    """The fields in which a config would change a run that was begun with another one.

    Args:
        config: the config now.
        earlier: the config then, from its JSON.

    Returns:
        A line for each field: its name, then and now. Where to read data, how often to save and
        the like may differ.
    """
    # Through JSON, so that a tuple equals the list it became.
    now, then = flatten(json.loads(to_json(config))), flatten(earlier)
    return [
        f"{name}: was {then.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(now.keys() | then.keys())
        if name not in FREE_FIELDS and now.get(name) != then.get(name)
    ]
