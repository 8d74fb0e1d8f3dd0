"""Validates a training config, and builds what it describes.

A config is an `ml_collections.ConfigDict`; `configs/common.py` lists every field and its meaning.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jax_stn_icnn.anatomy import DATA_SETS, FRAMINGS
from jax_stn_icnn.data.config import AugmentConfig
from jax_stn_icnn.io.weights import first_lines
from jax_stn_icnn.label_sets import make_label_sets
from jax_stn_icnn.models.config import CENTROID, ENCODER, ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train.losses import PIXEL_LOSSES
from jax_stn_icnn.train.stages import NETWORKS, REGIONS, STAGES

# Fields that may change when a run is resumed, since no parameter depends on them.
FREE_FIELDS = (
    "checkpoint_every_steps",
    "dataset.data_dir",
    "dataset.manual_dir",
    "dataset.test",
    "dataset.num_workers",
    "eval_batch_size",
    "validation_images",
)


class _Rule(NamedTuple):
    """A condition on the value of a field, and its description."""

    fits: Callable[[Any], bool]
    words: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_tuple_of(value: Any, rule: _Rule) -> bool:
    return isinstance(value, tuple | list) and all(map(rule.fits, value))


def _integer(lowest: int) -> _Rule:
    return _Rule(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= lowest,
        f"a whole number of at least {lowest}",
    )


def _one_of(*names: str) -> _Rule:
    return _Rule(lambda value: value in names, f"one of {', '.join(names)}")


def _some_of(names: tuple[str, ...]) -> _Rule:
    return _Rule(
        lambda value: (
            isinstance(value, tuple | list)
            and len(value) > 0
            and list(value) == [name for name in names if name in value]
        ),
        f"one or more of {names}, in this order",
    )


_TEXT = _Rule(lambda value: isinstance(value, str), "text")
_NAME = _Rule(lambda value: isinstance(value, str) and value != "", "text, not empty")
_FLAG = _Rule(lambda value: isinstance(value, bool), "True or False")
_POSITIVE = _Rule(lambda value: _is_number(value) and value > 0, "a number above 0")
_NOT_NEGATIVE = _Rule(lambda value: _is_number(value) and value >= 0, "a number of at least 0")
_FRAMING = _one_of("", *FRAMINGS)
_SHARE = _Rule(lambda value: _is_number(value) and 0 <= value <= 1, "a number in 0..1")

# The fields of each entry of `dataset.sources`.
SOURCE_FIELDS: dict[str, _Rule] = {
    "name": _NAME,
    "split": _NAME,
    "weight": _POSITIVE,
    "framing": _FRAMING,
}
# Every field but those, and those of `model` and `photo`: ModelConfig and AugmentConfig validate
# them.
FIELDS: dict[str, _Rule] = {
    "seed": _Rule(
        lambda value: _integer(0).fits(value) and value < 2**32, "a whole number in 0..2**32 - 1"
    ),
    "dataset.name": _NAME,
    "dataset.data_dir": _NAME,
    "dataset.manual_dir": _TEXT,
    "dataset.train": _NAME,
    "dataset.validation": _NAME,
    "dataset.test": _NAME,
    "dataset.framing": _FRAMING,
    "dataset.unlabelled": _Rule(
        lambda value: isinstance(value, str) or _is_tuple_of(value, _NAME),
        "text, or several texts",
    ),
    "dataset.rare_classes": _Rule(lambda value: _is_tuple_of(value, _NAME), "names of classes"),
    "dataset.rare_share": _SHARE,
    "dataset.paste": _SHARE,
    "dataset.frame_size": _integer(2),
    "dataset.num_workers": _integer(0),
    "init_from": _TEXT,
    "init_networks": _some_of(NETWORKS),
    "init_encoder": _Rule(lambda value: value in ("", "imagenet"), "imagenet, or empty"),
    "batch_size": _integer(1),
    "eval_batch_size": _integer(1),
    "augment": _FLAG,
    "mirror": _FLAG,
    "stages": _some_of(STAGES),
    "halve_every_epochs": _POSITIVE,
    "ema_decay": _Rule(lambda value: _is_number(value) and 0 <= value < 1, "a number in 0..1"),
    "part_weights": _Rule(
        lambda value: _is_tuple_of(value, _NOT_NEGATIVE),
        "numbers of at least 0, one for each part, or empty",
    ),
    "coarse.epochs": _integer(0),
    "coarse.lr": _POSITIVE,
    "coarse.encoder_lr_factor": _POSITIVE,
    "coarse.loss": _one_of(*PIXEL_LOSSES),
    "localizer.epochs": _integer(0),
    "localizer.lr": _POSITIVE,
    "fine.epochs": _integer(0),
    "fine.lr": _POSITIVE,
    "fine.jitter": _integer(0),
    "joint.epochs": _integer(0),
    "joint.lr_coarse": _NOT_NEGATIVE,
    "joint.lr_localizer": _NOT_NEGATIVE,
    "joint.lr_fine": _NOT_NEGATIVE,
    "joint.warmup_epochs": _NOT_NEGATIVE,
    "joint.coarse_weight": _NOT_NEGATIVE,
    "joint.localizer_weight": _NOT_NEGATIVE,
    "distill.epochs": _integer(0),
    "distill.lr_coarse": _NOT_NEGATIVE,
    "distill.lr_localizer": _NOT_NEGATIVE,
    "distill.lr_fine": _NOT_NEGATIVE,
    "distill.weight": _NOT_NEGATIVE,
    "distill.decay": _SHARE,
    "consensus.coarse": _NOT_NEGATIVE,
    "consensus.fine": _NOT_NEGATIVE,
    "consensus.regions": _one_of(*REGIONS),
    "consensus.warmup_epochs": _NOT_NEGATIVE,
    "edges.coarse": _NOT_NEGATIVE,
    "edges.fine": _NOT_NEGATIVE,
    "edges.task": _NOT_NEGATIVE,
    "checkpoint_every_steps": _integer(0),
    "validation_images": _integer(0),
}


def check(config: ConfigDict) -> None:
    """Checks a config; the message lists the first problems.

    Args:
        config: The config.

    Raises:
        ValueError: Fields are unknown, missing or impossible, or contradict each other.
    """
    values = {
        name: value
        for name, value in flatten(config).items()
        if not name.startswith(("model.", "photo.", "dataset.sources."))
    }
    problems = _source_problems(config)
    problems += [f"{name} is not a field" for name in values if name not in FIELDS]
    problems += [f"{name} is missing" for name in FIELDS if name not in values]
    problems += [
        f"{name} is {values[name]!r}, but must be {rule.words}"
        for name, rule in FIELDS.items()
        if name in values and not rule.fits(values[name])
    ]
    try:
        AugmentConfig.from_dict(_section(config, "photo"))
    except ValueError as error:
        problems.append(f"photo: {error}")
    try:
        model = model_config(config)
    except ValueError as error:
        problems.append(f"model: {error}")
    if not problems:
        problems = _unlabelled_classes(config, model) + _contradictions(values, model)
    if problems:
        raise ValueError("the config is wrong:\n  " + "\n  ".join(first_lines(problems)))


def _source_problems(config: ConfigDict) -> list[str]:
    """Returns a line for each wrong field of `dataset.sources`."""
    sources = _section(config, "dataset").get("sources")
    if not isinstance(sources, Mapping):
        return [
            "dataset.sources is missing" if sources is None else "dataset.sources is no section"
        ]
    problems = []
    for name, source in sources.items():
        prefix = f"dataset.sources.{name}"
        if not isinstance(source, Mapping):
            problems.append(f"{prefix} is {source!r}, but must contain {', '.join(SOURCE_FIELDS)}")
            continue
        problems += [
            f"{prefix}.{field} is not a field" for field in source if field not in SOURCE_FIELDS
        ]
        problems += [
            f"{prefix}.{field} is missing" for field in SOURCE_FIELDS if field not in source
        ]
        problems += [
            f"{prefix}.{field} is {source[field]!r}, but must be {rule.words}"
            for field, rule in SOURCE_FIELDS.items()
            if field in source and not rule.fits(source[field])
        ]
    return problems


def model_config(config: ConfigDict) -> ModelConfig:
    """Returns the model's options in a config.

    Raises:
        ValueError: An option is unknown, impossible or contradicts another one.
    """
    return ModelConfig.from_dict(_section(config, "model"))


def make_model(config: ConfigDict) -> STNiCNN:
    """Returns the model of a config."""
    return STNiCNN(model_config(config))


def make_augmentation(config: ConfigDict) -> AugmentConfig:
    """Returns the options of the augmentation in a config."""
    flags = {"variants": config.augment, "mirror": config.mirror}
    return AugmentConfig.from_dict(flags | _section(config, "photo"))


def _section(config: ConfigDict, name: str) -> dict[str, Any]:
    """Returns a section as a dict; empty if there is none."""
    section = config.get(name)
    return section.to_dict() if isinstance(section, ConfigDict) else {}


def _unlabelled_classes(config: ConfigDict, model: ModelConfig) -> list[str]:
    """Returns a line if registered data sets do not label a class of the anatomy."""
    names = [config.dataset.name, *(one.name for one in config.dataset.sources.values())]
    if not all(name in DATA_SETS for name in names):
        return []  # `batches.Data` reads the labels of prepared data sets.
    absent = make_label_sets(model.anatomy, [DATA_SETS[name] for name in names]).absent
    if not absent:
        return []
    return [
        f"model.anatomy and dataset do not match: {', '.join(map(repr, names))} "
        f"{'does' if len(names) == 1 else 'do'} not label "
        f"{', '.join(model.anatomy.classes[c] for c in absent)} alone, classes of the anatomy "
        f"{model.anatomy.name!r}"
    ]


def _contradictions(values: Mapping[str, Any], model: ModelConfig) -> list[str]:
    """Returns a line for each contradiction between fields."""
    problems = []
    largest = max(max(size) for size in model.patch_sizes)
    if largest > values["dataset.frame_size"]:
        problems.append(
            f"model.patch_size is {model.patch_size}, and the largest window has {largest} pixels "
            f"a side, but the frame has only dataset.frame_size = {values['dataset.frame_size']}"
        )
    if (values["edges.task"] > 0) != model.edge_head:
        problems.append(
            f"edges.task is {values['edges.task']} and model.edge_head is {model.edge_head}, but "
            "an edge task needs an edge head, and an edge head needs an edge task"
        )
    problems += _rare_problems(values, model)
    if values["part_weights"] and len(values["part_weights"]) != model.anatomy.num_parts:
        problems.append(
            f"part_weights has {len(values['part_weights'])} numbers, but the anatomy "
            f"{model.anatomy.name!r} has {model.anatomy.num_parts} parts"
        )
    if model.cropper == CENTROID and "localizer" in values["stages"]:
        problems.append(
            f"stages contains 'localizer', but model.cropper = {CENTROID!r} has no localizer"
        )
    for name, default in {"init_encoder": "", "coarse.encoder_lr_factor": 1.0}.items():
        if values[name] != default and model.coarse_network != ENCODER:
            problems.append(
                f"{name} is {values[name]!r}, but model.coarse_network = "
                f"{model.coarse_network!r} has no encoder"
            )
    if values["init_encoder"] and values["init_from"] and "coarse" in values["init_networks"]:
        problems.append(
            f"init_encoder is {values['init_encoder']!r}, but init_networks contains 'coarse', so "
            "that init_from also determines the encoder"
        )
    if not sum(values[f"{stage}.epochs"] for stage in values["stages"]):
        problems.append(f"every stage of stages = {values['stages']} has 0 epochs")
    for stage in ("joint", "distill"):
        networks = [n for n in NETWORKS if n != "localizer" or model.cropper != CENTROID]
        rates = [f"{stage}.lr_{network}" for network in networks]
        if not any(values[rate] for rate in rates):
            problems.append(f"{', '.join(rates)} are all 0: no network would be trained")
    if values["dataset.unlabelled"] and "distill" not in values["stages"]:
        problems.append(
            f"dataset.unlabelled is {values['dataset.unlabelled']!r}, but only the stage 'distill' "
            "uses images without labels"
        )
    return problems


def _rare_problems(values: Mapping[str, Any], model: ModelConfig) -> list[str]:
    """Returns a line for each contradiction between the fields of rare classes."""
    names, known = values["dataset.rare_classes"], model.anatomy.classes[1:]
    problems = [
        f"dataset.rare_classes contains {name!r}, but must contain classes of the anatomy "
        f"{model.anatomy.name!r}, each once: {', '.join(known)}"
        for place, name in enumerate(names)
        if name not in known or name in names[:place]
    ]
    if bool(names) != bool(values["dataset.rare_share"] or values["dataset.paste"]):
        problems.append(
            f"dataset.rare_classes is {names}, dataset.rare_share {values['dataset.rare_share']} "
            f"and dataset.paste {values['dataset.paste']}, but rare classes need a share or a "
            "probability above 0, and these need rare classes"
        )
    return problems


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the value of every field by its dotted name.

    Args:
        config: A config, or a mapping such as its JSON gives, nested to any depth.
        prefix: Prefix of all names, with its dot.

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
    """Returns the config as JSON, with sorted fields."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def read(path: Path) -> ConfigDict:
    """Returns the config in a file that `to_json` wrote, checked.

    Args:
        path: The file.

    Raises:
        ValueError: The file is damaged, or its config is wrong; the message names the file.
    """
    try:
        config = ConfigDict(dict(json.loads(path.read_text())))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): the command that trained the run writes it again"
        ) from error
    try:
        check(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config


def differences(config: ConfigDict, saved: Mapping[str, Any]) -> list[str]:
    """Returns the fields by which a config would change a run that was started with another one.

    Args:
        config: The config.
        saved: The config of the run, from its JSON.

    Returns:
        A line for each field that differs and is not one of FREE_FIELDS: its name, and both values.
    """
    # Through JSON, so that a tuple equals the list it became.
    now, then = flatten(json.loads(to_json(config))), flatten(saved)
    return [
        f"{name}: was {then.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(now.keys() | then.keys())
        if name not in FREE_FIELDS and now.get(name) != then.get(name)
    ]
