"""`ModelConfig`: every option of the model, declared and validated in one place."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jax_stn_icnn.anatomy import NINE, Anatomy, Part, get_anatomy

CENTROID = "centroid"
CROPPERS = ("vgg9", "small", "resnet18", CENTROID)
ENCODER = "efficientnet_lite0"
COARSE_NETWORKS = ("icnn", "unet", ENCODER)
WINDOWS = ("square", "fitted")
DTYPES = ("float32", "bfloat16")
# The paper's interlinked CNN: channels of the four rows, and number of interlinking layers.
CHANNELS = (8, 16, 24, 32)
INTERLINKS = 3
# Side of the coarse segmentation in the paper; the localizer `small` takes no other.
COARSE_SIZE = 128
# Self-attention splits its channels among the heads; queries and keys have a quarter of them.
ATTENTION_HEADS = 4
ATTENTION_KEY_RATIO = 4
# The fine network's row that a bridge adds its features to.
BRIDGE_ROW = 2
# Upper limits of counts, far above those of real networks: with larger ones, a damaged file would
# take all memory or time.
MOST_PIXELS = 2**13  # of a side
MOST_CHANNELS = 2**13
MOST_LAYERS = 64
# Input side over the side of the coarse segmentation of a coarse network with an encoder: one pixel
# of the encoder's features at stride 4 stands for 2 x 2 pixels of the segmentation.
ENCODER_COARSE_STRIDE = 2


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Options of `STNiCNN`. The defaults are the paper's model for nine classes.

    Attributes:
        anatomy: The classes and the parts that have a window.
        cropper: The localizer that predicts the windows, `vgg9`, `small` or `resnet18`, or
            `centroid`, the baseline that crops around the parts' centres without a localizer.
        patch_size: Side of the square window in frame pixels, odd so that windows fall on whole
            pixels: 81 for HELEN, 127 for CelebAMask-HQ.
        windows: `square`, one size for all parts, or `fitted`, a height and a width for each part
            as `Part.window` gives them, scaled to `patch_size`.
        coarse_network: `icnn`, the paper's; `unet`, which has a larger receptive field; or
            `efficientnet_lite0`, an encoder with ImageNet weights, and a feature pyramid.
        coarse_channels: Channels of each row of an `icnn` or a `unet`.
        coarse_size: Side of the coarse segmentation in pixels, a multiple of 16.
        coarse_stride: Side of the coarse network's input over the side of the coarse segmentation.
            Above 1, the global classes are predicted at the input's resolution. An `icnn` has 1, an
            encoder 2, a `unet` any.
        attention: Number of rows of a `unet` with self-attention, counted from the lowest (Han and
            Yoon, 2024).
        edge_head: Whether the coarse network, other than an `icnn`, also predicts edges between
            classes, a training task only (Han and Yoon, 2024).
        bridge: Whether the fine networks receive the output of the coarse network, other than an
            `icnn`, for their window and for the full face (CLRNet, Huang et al., 2021).
        flip_test: Whether inference averages the logits of the global classes over the image and
            its mirror image.
        wide: Whether the coarse network is trained on wide frames, too, so that parsers also label
            hair, neck and clothes outside of the frame (`models.wide`).
        fine_channels: Channels of each row of the fine networks.
        interlinks: Number of interlinking layers of each interlinked CNN.
        dtype: Type of the computation, `float32` or `bfloat16`. Parameters, statistics, logits and
            coordinates are always float32.

    Raises:
        ValueError: An option is impossible or contradicts another one; the message lists all
            problems.
    """

    anatomy: Anatomy = NINE
    cropper: str = "vgg9"
    patch_size: int = 81
    windows: str = "square"
    coarse_network: str = "icnn"
    coarse_channels: tuple[int, ...] = CHANNELS
    coarse_size: int = COARSE_SIZE
    coarse_stride: int = 1
    attention: int = 0
    edge_head: bool = False
    bridge: bool = False
    flip_test: bool = False
    wide: bool = False
    fine_channels: tuple[int, ...] = CHANNELS
    interlinks: int = INTERLINKS
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Validates the options."""
        problems = self._impossible_options()
        # Options are compared with one another only if each of them is possible.
        problems = problems or self._contradictions()
        if problems:
            raise ValueError("\n  ".join(["the model's options are wrong:", *problems]))

    @property
    def patch_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each part's patch, in pixels."""
        if self.windows == "square":
            return ((self.patch_size, self.patch_size),) * self.anatomy.num_parts
        return self.anatomy.fitted_sizes(self.patch_size)

    @property
    def coarse_image_size(self) -> tuple[int, int]:
        """(height, width) of the coarse network's input, in pixels."""
        return (self.coarse_size * self.coarse_stride,) * 2

    def replace(self, **options: Any) -> "ModelConfig":
        """Returns a copy with some options changed."""
        return dataclasses.replace(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as a dict that JSON can hold, the anatomy nested."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Returns the config of a dict.

        Args:
            values: The options by name, as `to_dict` returns them or as JSON restores them; an
                option that is missing has its default. `anatomy` may also be the name of a
                registered anatomy.

        Returns:
            The config.

        Raises:
            ValueError: An option is unknown, impossible or contradicts another one.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(
                f"{', '.join(map(repr, unknown))} is no option of the model: "
                f"the options are {', '.join(known)}"
            )
        options = {name: _to_tuples(value) for name, value in values.items()}
        if "anatomy" in options:
            options["anatomy"] = _to_anatomy(options["anatomy"])
        return cls(**options)

    def _impossible_options(self) -> list[str]:
        """Returns a line for each option whose value is impossible by itself."""
        rules = {
            "anatomy": (isinstance(self.anatomy, Anatomy), "an Anatomy"),
            "cropper": _one_of(self.cropper, CROPPERS),
            "patch_size": (
                _is_count(self.patch_size, 3, MOST_PIXELS) and self.patch_size % 2 == 1,
                f"an odd number in 3..{MOST_PIXELS}, so that windows fall on whole pixels",
            ),
            "windows": _one_of(self.windows, WINDOWS),
            "coarse_network": _one_of(self.coarse_network, COARSE_NETWORKS),
            "coarse_channels": _rows(self.coarse_channels),
            "coarse_size": (
                _is_count(self.coarse_size, 32, MOST_PIXELS) and self.coarse_size % 16 == 0,
                f"a multiple of 16 in 32..{MOST_PIXELS}",
            ),
            "coarse_stride": _count(self.coarse_stride, 1),
            "attention": _count(self.attention, 0),
            "edge_head": _flag(self.edge_head),
            "bridge": _flag(self.bridge),
            "flip_test": _flag(self.flip_test),
            "wide": _flag(self.wide),
            "fine_channels": _rows(self.fine_channels),
            "interlinks": _count(self.interlinks, 1),
            "dtype": _one_of(self.dtype, DTYPES),
        }
        return [
            f"{name} is {getattr(self, name)!r}, but must be {words}"
            for name, (fits, words) in rules.items()
            if not fits
        ]

    def _contradictions(self) -> list[str]:
        """Returns a line for each pair of options that exclude each other."""
        problems = []
        only_background = len(self.anatomy.global_ids) == 1
        for name, default in {"coarse_stride": 1, "flip_test": False, "wide": False}.items():
            if only_background and getattr(self, name) != default:
                problems.append(
                    f"{name} is {getattr(self, name)!r}, but must be {default!r}: background is "
                    f"the only global class of the anatomy {self.anatomy.name!r}"
                )
        problems += self._coarse_network_contradictions()
        rows = len(self.coarse_channels)
        multiple = ATTENTION_HEADS * ATTENTION_KEY_RATIO
        if self.attention > rows:
            problems.append(
                f"attention is {self.attention}, but coarse_channels has only {rows} rows"
            )
        attending = self.coarse_channels[rows - min(self.attention, rows) :]
        if uneven := [channels for channels in attending if channels % multiple]:
            problems.append(
                f"coarse_channels has a row of {uneven[0]} channels with self-attention "
                f"(attention={self.attention}), but there it must be a multiple of {multiple}"
            )
        if self.cropper == "small" and self.coarse_size != COARSE_SIZE:
            problems.append(
                f"coarse_size is {self.coarse_size}, but cropper='small' needs {COARSE_SIZE}"
            )
        smallest = min(min(size) for size in self.patch_sizes)
        lowest = len(self.fine_channels) - 1
        if self.bridge and -(-smallest // 2**lowest) < 2:
            problems.append(
                f"fine_channels has {lowest + 1} rows, the lowest of which must have at least two "
                f"pixels a side for a bridge, but the smallest window has {smallest} pixels"
            )
        return problems

    def _coarse_network_contradictions(self) -> list[str]:
        """Returns a line for each option that the coarse network excludes."""
        problems = []
        needed_by = {
            "coarse_stride": (1, ("unet", ENCODER)),
            "attention": (0, ("unet",)),
            "edge_head": (False, ("unet", ENCODER)),
            "bridge": (False, ("unet", ENCODER)),
        }
        for name, (default, networks) in needed_by.items():
            if getattr(self, name) != default and self.coarse_network not in networks:
                problems.append(
                    f"{name} is {getattr(self, name)!r}, which needs coarse_network="
                    f"{' or '.join(map(repr, networks))}, but that is {self.coarse_network!r}"
                )
        if self.coarse_network == ENCODER and self.coarse_stride != ENCODER_COARSE_STRIDE:
            problems.append(
                f"coarse_stride is {self.coarse_stride}, but coarse_network={ENCODER!r} needs "
                f"{ENCODER_COARSE_STRIDE}"
            )
        return problems


def _to_tuples(value: Any) -> Any:
    """Returns a value with its lists turned into tuples, as JSON has no tuples."""
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return tuple(map(_to_tuples, value))
    return value


def _to_anatomy(value: Any) -> Any:
    """Returns the anatomy of a name or of a dict."""
    if isinstance(value, str):
        return get_anatomy(value)
    if not isinstance(value, Mapping):
        return value
    fields = {name: _to_tuples(field) for name, field in value.items()}
    try:
        fields["parts"] = tuple(Part(*part) for part in fields["parts"])
        return Anatomy(**fields)
    except (KeyError, TypeError) as error:
        names = ", ".join(field.name for field in dataclasses.fields(Anatomy))
        raise ValueError(f"anatomy must hold {names}: {error}") from error


def _is_count(value: Any, lowest: int, highest: int) -> bool:
    return type(value) is int and lowest <= value <= highest


def _count(value: Any, lowest: int) -> tuple[bool, str]:
    return _is_count(value, lowest, MOST_LAYERS), f"a whole number in {lowest}..{MOST_LAYERS}"


def _one_of(value: Any, words: tuple[str, ...]) -> tuple[bool, str]:
    return value in words, f"one of {', '.join(words)}"


def _flag(value: Any) -> tuple[bool, str]:
    return isinstance(value, bool), "True or False"


def _rows(value: Any) -> tuple[bool, str]:
    fits = isinstance(value, tuple) and 2 <= len(value) <= 6
    return (
        fits and all(_is_count(channels, 1, MOST_CHANNELS) for channels in value),
        f"two to six whole numbers in 1..{MOST_CHANNELS}, the channels of the network's rows",
    )
