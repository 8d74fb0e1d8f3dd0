"""What a run's config may say, checked before anything starts, and what follows from it.

A config is an `ml_collections.ConfigDict`; `configs/common.py` shows every field with its meaning.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict

from jax_stn_icnn import anatomy
from jax_stn_icnn.data.photometric import Strengths
from jax_stn_icnn.geometry import COARSE_SIZE, Size
from jax_stn_icnn.models.attention import HEADS, NARROWER
from jax_stn_icnn.models.localizer import LOCALIZERS
from jax_stn_icnn.models.pipeline import CENTROID, COARSE_NETWORKS, STNiCNN
from jax_stn_icnn.train.stages import NETWORKS, PIXEL_LOSSES, REGIONS, STAGES

WINDOWS = ("square", "fitted", "following")
DTYPES = ("float32", "bfloat16")

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
_ROWS = _Rule(
    lambda value: (
        isinstance(value, tuple | list) and 2 <= len(value) <= 6 and all(map(_whole(1).fits, value))
    ),
    "two to six whole numbers of at least 1, the channels of a network's rows",
)

FIELDS: dict[str, _Rule] = {
    "seed": _Rule(
        lambda value: _whole(0).fits(value) and value < 2**32, "a whole number in 0..2**32 - 1"
    ),
    "classes": _Rule(
        lambda value: value in anatomy.ANATOMIES,
        "the name of an anatomy, one of this package or one that the config's file registers",
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
    "model.cropper": _one_of(*LOCALIZERS, CENTROID),
    "model.patch_size": _Rule(
        lambda value: _whole(3).fits(value) and value % 2 == 1,
        "an odd number of at least 3, so that windows fall on whole pixels",
    ),
    "model.windows": _one_of(*WINDOWS),
    "model.coarse_network": _one_of(*COARSE_NETWORKS),
    "model.coarse_channels": _ROWS,
    "model.fine_channels": _ROWS,
    "model.interlinks": _whole(1),
    "model.coarse_size": _Rule(
        lambda value: _whole(32).fits(value) and value % 16 == 0,
        "a multiple of 16, at least 32",
    ),
    "model.coarse_stride": _whole(1),
    "model.attention": _whole(0),
    "model.bridge": _FLAG,
    "model.flip_test": _FLAG,
    "model.dtype": _one_of(*DTYPES),
    "init_from": _TEXT,
    "init_networks": _some_of(NETWORKS),
    "batch_size": _whole(1),
    "eval_batch_size": _whole(1),
    "augment": _FLAG,
    "mirror": _FLAG,
    **{
        f"photo.{field.name}": _SHARE if field.name == "grey" else _NOT_NEGATIVE
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
    """Checks a whole config, and lists all that is wrong at once.

    Args:
        config: the config.

    Raises:
        ValueError: fields are unknown, missing or impossible; the message names each.
    """
    values = flatten(config)
    problems = [f"{name} is not a field" for name in values if name not in FIELDS]
    problems += [f"{name} is missing" for name in FIELDS if name not in values]
    problems += [
        f"{name} is {values[name]!r}, but must be {rule.words}"
        for name, rule in FIELDS.items()
        if name in values and not rule.fits(values[name])
    ]
    if not problems:
        problems = _contradictions(values)
    if problems:
        raise ValueError("the config is wrong:\n  " + "\n  ".join(problems))


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """What is wrong between fields that are each possible."""
    problems = []
    chosen = anatomy.get_anatomy(values["classes"])
    try:
        anatomy.data_set_class_ids(chosen, values["dataset.name"])
    except ValueError as error:
        problems.append(f"classes and dataset.name do not fit: {error}")
    largest = max(max(size) for size in _patch_sizes(values, chosen))
    if largest > values["dataset.frame_size"]:
        problems.append(
            f"model.patch_size is {values['model.patch_size']}, and the largest window has "
            f"{largest} pixels a side, but the frame has "
            f"only dataset.frame_size = {values['dataset.frame_size']} pixels a side"
        )
    if values["model.coarse_stride"] > 1 and len(chosen.global_ids) == 1:
        problems.append(
            f"model.coarse_stride is {values['model.coarse_stride']}, but must be 1: of the classes "
            f"{chosen.name!r} only background has no window"
        )
    if values["model.flip_test"] and len(chosen.global_ids) == 1:
        problems.append(
            "model.flip_test is True, which is for classes without a window, but of the classes "
            f"{chosen.name!r} only background has none"
        )
    if values["model.coarse_stride"] > 1 and values["model.coarse_network"] != "unet":
        problems.append(
            f"model.coarse_stride is {values['model.coarse_stride']}, which only model.coarse_network='unet' "
            f"knows, but that is {values['model.coarse_network']!r}"
        )
    rows = len(values["model.coarse_channels"])
    if values["model.attention"] > (rows if values["model.coarse_network"] == "unet" else 0):
        problems.append(
            f"model.attention is {values['model.attention']}, but only a "
            f"model.coarse_network='unet' has it, in at most its {rows} rows"
        )
    attending = values["model.coarse_channels"][rows - min(values["model.attention"], rows) :]
    if uneven := [n for n in attending if n % (HEADS * NARROWER)]:
        problems.append(
            f"model.coarse_channels holds {uneven[0]} in a row that model.attention = "
            f"{values['model.attention']} takes, but there it must divide by {HEADS * NARROWER}"
        )
    if values["model.cropper"] == "small" and values["model.coarse_size"] != COARSE_SIZE[0]:
        problems.append(
            f"model.coarse_size is {values['model.coarse_size']}, but model.cropper='small' takes "
            f"only {COARSE_SIZE[0]}"
        )
    if values["model.bridge"] and values["model.coarse_network"] != "unet":
        problems.append("model.bridge is True, but only a model.coarse_network='unet' has it")
    smallest = min(min(size) for size in _patch_sizes(values, chosen))
    lower = len(values["model.fine_channels"]) - 1
    if values["model.bridge"] and -(-smallest // 2**lower) < 2:
        problems.append(
            f"model.fine_channels has {lower + 1} rows, of which model.bridge needs two pixels a "
            f"side, but the smallest window has only {smallest}"
        )
    if values["edges.task"] and values["model.coarse_network"] != "unet":
        problems.append(
            f"edges.task is {values['edges.task']}, but only a model.coarse_network='unet' has it"
        )
    if len(values["part_weights"]) != chosen.num_parts:
        problems.append(
            f"part_weights holds {len(values['part_weights'])} numbers, but the classes "
            f"{chosen.name!r} have {chosen.num_parts} parts"
        )
    if values["model.cropper"] == CENTROID and "localizer" in values["stages"]:
        problems.append(
            f"stages holds 'localizer', but model.cropper = {CENTROID!r} has none to train"
        )
    if values["model.cropper"] == CENTROID and values["model.windows"] == "following":
        problems.append(
            f"model.windows is 'following', but the windows of model.cropper = {CENTROID!r} have "
            "one size"
        )
    if not sum(values[f"{stage}.epochs"] for stage in values["stages"]):
        problems.append(f"every stage of stages = {values['stages']} has 0 epochs")
    for stage in ("joint", "distill"):
        learning = [n for n in NETWORKS if n != "localizer" or values["model.cropper"] != CENTROID]
        if not any(values[f"{stage}.lr_{network}"] for network in learning):
            rates = ", ".join(f"{stage}.lr_{network}" for network in learning)
            problems.append(f"{rates} are all 0: nothing would learn")
    if values["dataset.unlabelled"] and "distill" not in values["stages"]:
        problems.append(
            f"dataset.unlabelled is {values['dataset.unlabelled']!r}, but only the stage 'distill' "
            "learns from pictures without labels"
        )
    return problems


def _patch_sizes(values: Mapping[str, Any], chosen: anatomy.Anatomy) -> tuple[Size, ...]:
    side = values["model.patch_size"]
    if values["model.windows"] == "square":
        return ((side, side),) * chosen.num_parts
    return chosen.fitted_sizes(side)


def make_model(config: ConfigDict) -> STNiCNN:
    """The parser that a config describes."""
    chosen, side = anatomy.get_anatomy(config.classes), config.model.patch_size
    windows = config.model.windows
    return STNiCNN(
        (side, side) if windows == "square" else chosen.fitted_sizes(side),
        config.model.cropper,
        anatomy=chosen,
        coarse_network=config.model.coarse_network,
        coarse_channels=tuple(config.model.coarse_channels),
        coarse_stride=config.model.coarse_stride,
        coarse_size=config.model.coarse_size,
        attention=config.model.attention,
        edges=config.edges.task > 0,
        bridge=config.model.bridge,
        flip_test=config.model.flip_test,
        fine_channels=tuple(config.model.fine_channels),
        interlinks=config.model.interlinks,
        following=windows == "following",
        dtype=jnp.dtype(config.model.dtype).type,
    )


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
