"""Initial weights from trained ones, also of a model with other classes, parts or networks."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from jax_stn_icnn.io import weights
from jax_stn_icnn.models.channel_names import ChannelName, ChannelNames, channel_names
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train.stages import NETWORKS

# Options that determine the layers of a network, for messages.
_OPTIONS = {
    "coarse": ("coarse_network", "coarse_channels", "coarse_stride"),
    "localizer": ("cropper",),
    "fine": ("fine_channels",),
}

_Variables = dict[tuple[str, ...], np.ndarray]


class Transfer(NamedTuple):
    """Initial variables of a model.

    Attributes:
        variables: `{"params": ..., "batch_stats": ...}`.
        summary: Lines with the numbers of variables that are loaded, initialized and not used.
    """

    variables: dict[str, Any]
    summary: str


@dataclasses.dataclass(frozen=True)
class _Layer:
    """Initial variables of a layer.

    Attributes:
        path: Path of the layer, such as `("coarse", "logits")`.
        variables: Path of a variable, with its collection -> its value.
        is_loaded: Whether the variables, or parts of them, are loaded.
        note: What is not loaded, or why; empty if all is loaded.
    """

    path: tuple[str, ...]
    variables: _Variables
    is_loaded: bool
    note: str = ""

    @property
    def group(self) -> str:
        """The network of the layer; each fine network is one."""
        return "/".join(self.path[: 2 if self.path[0] == "fine" else 1])


def load_variables(
    source: str, model: STNiCNN, variables: Mapping[str, Any], networks: Sequence[str] = NETWORKS
) -> Transfer:
    """Returns a model's variables, loaded from trained weights as far as these fit.

    A layer is loaded if the weights have a layer of the same path and shapes; a BatchNorm, with its
    statistics, is loaded only with the convolution in front of it. The output layers of all
    networks, and the first layers of localizer and bridge, are loaded by the names of classes and
    parts (`channel_names`): channels of a name that both models have are copied to their new
    positions, the others are as in `variables`. The head of an interlinked CNN, its last three
    layers, is loaded only if the number of labels is the same, since that determines the number of
    its hidden channels.

    Args:
        source: The name of weights in the package, a `.safetensors` file, or the directory of a
            run.
        model: The model of the variables.
        variables: Initial variables of the model, for everything that is not loaded.
        networks: The networks to load.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a weights file, or no variable fits; if `networks` is a
            selection, no variable of one of them fits.
    """
    try:
        path = weights.weights_file(source)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"init_from: {error}") from error
    loaded = weights.load_weights(path)
    old_names, new_names = channel_names(loaded.model.config), channel_names(model.config)
    old_layers, new_layers = _layers(loaded.variables), _layers(variables)
    layers = [
        _transfer(
            layer,
            old_layers.get(layer, {}),
            new_layers[layer],
            old_names.get(layer, ChannelNames()),
            new_names.get(layer, ChannelNames()),
        )
        for layer in new_layers
    ]
    _check_networks(path, layers, networks, loaded.model.config, model.config)
    layers = [
        layer
        if layer.path[0] in networks
        else _Layer(layer.path, new_layers[layer.path], False, "not in init_networks")
        for layer in layers
    ]
    merged = {name: value for layer in layers for name, value in layer.variables.items()}
    old = [_Layer(layer, old_layers[layer], False) for layer in old_layers if layer[0] in networks]
    return Transfer(traverse_util.unflatten_dict(merged), _summary(source, layers, old))


def _layers(variables: Mapping[str, Any]) -> dict[tuple[str, ...], _Variables]:
    """Returns path of a layer -> its variables, in the order of NETWORKS."""
    layers: dict[tuple[str, ...], _Variables] = {}
    for name, value in traverse_util.flatten_dict(dict(variables)).items():
        layers.setdefault(_layer_of(name), {})[name] = np.asarray(value)
    return dict(sorted(layers.items(), key=lambda item: (NETWORKS.index(item[0][0]), item[0])))


def _layer_of(variable: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the path of the layer that is loaded or initialized together with a variable."""
    _, *path, _ = variable
    for i, name in enumerate(path):
        if name.startswith("attention_"):
            return tuple(path[: i + 1])
    # norm_0 follows conv_0, and shortcut_norm shortcut.
    name = "shortcut" if path[-1] == "shortcut_norm" else path[-1].replace("norm", "conv")
    return (*path[:-1], name)


def _transfer(
    path: tuple[str, ...],
    old: _Variables,
    new: _Variables,
    old_names: ChannelNames,
    new_names: ChannelNames,
) -> _Layer:
    """Returns a layer with what fits of the loaded one."""
    if not old:
        return _Layer(path, new, False, "not in the file")
    merged = {}
    for name in new:
        value = _copy(old[name], new[name], old_names, new_names) if name in old else None
        if value is None or old.keys() != new.keys():
            return _Layer(path, new, False, "another shape")
        merged[name] = value
    added = [
        str(name[0])
        for before, now in zip(old_names, new_names, strict=True)
        for name in now or ()
        if before is not None and name not in before
    ]
    return _Layer(path, merged, True, f"new: {', '.join(dict.fromkeys(added))}" if added else "")


def _copy(
    old: np.ndarray, new: np.ndarray, old_names: ChannelNames, new_names: ChannelNames
) -> np.ndarray | None:
    """Returns new values with those of the old ones that fit; None if none fits."""
    if old.ndim != new.ndim:
        return None
    # The last two axes of a kernel are inputs and outputs; a bias has only the last one.
    named = {-2: (old_names.inputs, new_names.inputs), -1: (old_names.outputs, new_names.outputs)}
    sources, targets = [], []
    for axis in range(-new.ndim, 0):
        before, now = named.get(axis, (None, None))
        pairs = _matches(old.shape[axis], new.shape[axis], before, now)
        if not pairs:
            return None
        source, target = zip(*pairs, strict=True)
        sources.append(source)
        targets.append(target)
    copied = np.array(new)
    copied[np.ix_(*targets)] = old[np.ix_(*sources)]
    return copied


def _matches(
    old: int,
    new: int,
    before: tuple[ChannelName, ...] | None,
    now: tuple[ChannelName, ...] | None,
) -> list[tuple[int, int]]:
    """Returns pairs of old and new positions along an axis, given its lengths and its names."""
    if before is None or now is None:
        return [(i, i) for i in range(new)] if old == new else []
    positions = {name: i for i, name in enumerate(before)}
    return [(positions[name], i) for i, name in enumerate(now) if name in positions]


def _check_networks(
    path: Path,
    layers: Sequence[_Layer],
    networks: Sequence[str],
    loaded: ModelConfig,
    config: ModelConfig,
) -> None:
    """Checks that something is loaded of each network, or of any, if all networks are to load."""
    fitting = [n for n in NETWORKS if any(x.is_loaded and x.path[0] == n for x in layers)]
    failing = [n for n in networks if n not in fitting]
    if not failing or (tuple(networks) == NETWORKS and fitting):
        return
    options = [option for network in failing for option in _OPTIONS[network]]
    differences = [
        f"{option} is {getattr(loaded, option)!r} in the file, but {getattr(config, option)!r} in "
        "the config"
        for option in options
        if getattr(loaded, option) != getattr(config, option)
    ]
    names = tuple(n for n in networks if n in fitting) or tuple(fitting)
    remedy = (
        f"init_networks={names!r} to load what fits"
        if names
        else "init_from='' to start from random parameters"
    )
    raise ValueError(
        f"init_from: {path} has no layer that fits the model's {' and '.join(failing)}; "
        f"set {remedy}" + "".join(f"\n  {line}" for line in differences)
    )


def _summary(source: str, layers: Sequence[_Layer], old: Sequence[_Layer]) -> str:
    """Returns the numbers of variables that were loaded, initialized and not used, by layer.

    Args:
        source: As in `load_variables`.
        layers: All layers of the model.
        old: Layers of the weights, those of the networks to load.
    """
    complete = [layer for layer in layers if layer.is_loaded and not layer.note]
    partial = [layer for layer in layers if layer.is_loaded and layer.note]
    initial = [layer for layer in layers if not layer.is_loaded]
    paths = {layer.path for layer in layers}
    unused = [layer for layer in old if layer.path not in paths]
    lines = [f"init_from: {source}"]
    for title, members, all_layers in (
        ("loaded", complete, complete),
        ("loaded in part", partial, layers),
        ("initialized", initial, layers),
        ("not used", unused, old),
    ):
        if members:
            lines.append(f"  {title} {_count(members)} variables:")
            lines += [f"    {x}" for x in weights.first_lines(_lines(members, all_layers))]
    return "\n".join(lines)


def _lines(members: Sequence[_Layer], layers: Sequence[_Layer]) -> list[str]:
    """Returns a line for each network whose layers are all members, and for each other member."""
    lines = []
    for group in dict.fromkeys(layer.group for layer in members):
        own = [layer for layer in members if layer.group == group]
        if len(own) >= sum(layer.group == group for layer in layers):
            lines.append(_line(group, own))
        else:
            lines += [_line("/".join(layer.path), [layer]) for layer in own]
    return lines


def _line(name: str, layers: Sequence[_Layer]) -> str:
    notes = "; ".join(dict.fromkeys(layer.note for layer in layers if layer.note))
    return f"{name} {_count(layers)}" + (f" ({notes})" if notes else "")


def _count(layers: Sequence[_Layer]) -> int:
    """Returns the number of variables."""
    return sum(len(layer.variables) for layer in layers)
