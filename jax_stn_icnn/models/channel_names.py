"""Names of the channels of layers whose input or output is a class or a part.

Two models with different anatomies have such layers in common only as far as their names agree, at
whatever position.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from jax_stn_icnn.anatomy import Anatomy, Part
from jax_stn_icnn.models.bridge import FEATURES
from jax_stn_icnn.models.coarse import BLOCK
from jax_stn_icnn.models.config import CENTROID, ModelConfig

# The background is class 0, by any name.
BACKGROUND = "background"
# Localizer -> its first layer, its last layer, and the number of outputs of a part.
_LOCALIZER_LAYERS = {
    "vgg9": ("conv_0", "dense", 4),
    "small": ("conv_0", "conv_14", 1),
    "resnet18": ("conv", "dense", 6),
}

# A class or a part, and an index or a pixel of a block: what its channels differ in.
ChannelName: TypeAlias = tuple[str | int, ...]
# Path of a layer in the variables, without the collection.
LayerPath: TypeAlias = tuple[str, ...]


class ChannelNames(NamedTuple):
    """Names of a layer's channels, in order.

    Attributes:
        inputs: Names of the input channels; None if they are hidden features.
        outputs: Names of the output channels; None if they are hidden features.
    """

    inputs: tuple[ChannelName, ...] | None = None
    outputs: tuple[ChannelName, ...] | None = None


def channel_names(config: ModelConfig) -> dict[LayerPath, ChannelNames]:
    """Returns the names of the channels of every layer that has names.

    The head of an interlinked CNN has names only in its last layer: the layers before it are
    hidden, but their widths depend on the number of labels.

    Args:
        config: Options of the model.

    Returns:
        Path of the layer in the variables, such as `("coarse", "logits")` -> its names.
    """
    return _coarse(config) | _localizer(config) | _fine(config)


def _coarse(config: ModelConfig) -> dict[LayerPath, ChannelNames]:
    names = _class_names(config.anatomy)
    if config.coarse_network == "icnn":
        return {("coarse", "head_3"): ChannelNames(outputs=_repeat(names, 1))}
    layers: dict[LayerPath, ChannelNames] = {
        ("coarse", "logits"): ChannelNames(outputs=_pixels(names, BLOCK))
    }
    if config.coarse_stride > 1:
        global_names = [names[i] for i in config.anatomy.global_ids]
        outputs = _pixels(global_names, BLOCK * config.coarse_stride)
        layers["coarse", "finer"] = ChannelNames(outputs=outputs)
    return layers


def _localizer(config: ModelConfig) -> dict[LayerPath, ChannelNames]:
    if config.cropper == CENTROID:
        return {}
    first, last, count = _LOCALIZER_LAYERS[config.cropper]
    names = _class_names(config.anatomy)
    inputs = [BACKGROUND, *(names[i] for i in config.anatomy.part_class_ids)]
    parts = [part.name for part in config.anatomy.parts]
    return {
        ("localizer", first): ChannelNames(inputs=_repeat(inputs, 1)),
        ("localizer", last): ChannelNames(outputs=_repeat(parts, count)),
    }


def _fine(config: ModelConfig) -> dict[LayerPath, ChannelNames]:
    layers: dict[LayerPath, ChannelNames] = {}
    # The first part of each network names its labels.
    parts = {part.network: part for part in reversed(config.anatomy.parts)}
    for network, part in parts.items():
        layers["fine", network, "head_3"] = ChannelNames(outputs=_repeat(_label_names(part), 1))
        if config.bridge:
            features = tuple(("feature", i) for i in range(FEATURES))
            inputs = _repeat(_class_names(config.anatomy), 1) + features
            for layer in ("window", "face"):
                layers["fine", f"bridge_{network}", layer] = ChannelNames(inputs=inputs)
    return layers


def _label_names(part: Part) -> list[str]:
    """Returns the names of the labels of a part's network; the only class of a part is the part."""
    return [BACKGROUND, *(part.classes if len(part.classes) > 1 else [part.network])]


def _class_names(anatomy: Anatomy) -> list[str]:
    return [BACKGROUND, *anatomy.classes[1:]]


def _repeat(names: Sequence[str], count: int) -> tuple[ChannelName, ...]:
    """Returns names of channels of which `count` in a row belong to each name."""
    return tuple((name, i) for name in names for i in range(count))


def _pixels(names: Sequence[str], side: int) -> tuple[ChannelName, ...]:
    """Returns names of channels in the order that `depth_to_space` expects."""
    return tuple((name, side, pixel) for pixel in range(side**2) for name in names)
