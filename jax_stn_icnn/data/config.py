"""`AugmentConfig`: every option of the augmentation, declared and validated in one place."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Options of the augmentation of training examples; by default there is none.

    Each option from `grayscale` on is the strength of an operation: the largest amount of what is
    drawn uniformly for a random half of the examples. 0 turns the operation off.

    Attributes:
        variants: Whether each example becomes a random one of five variants, by rotation, shift,
            scale and noise (`augment.augment`).
        mirror: Whether a random half of the examples is mirrored, left to right; classes of the two
            sides are swapped.
        grayscale: Share of the examples without colour, 0..1.
        colour: Logarithm of each channel's gain, either way: white balance and coloured light.
        gamma: Logarithm of the exponent, either way.
        contrast: Logarithm of the factor about the mean, either way.
        occlusion: Side of a patch that occludes some of the face, as a share of the frame's side.
        blur: Standard deviation of a Gaussian, as a share of the frame's side.
        resolution: Base-2 logarithm of the factor of a downsampling.
        noise: Standard deviation of noise in the downsampled image, of the range 0..1.
        jpeg: Quantization of JPEG in the downsampled image, as a multiple of quality 50's.
        rotation: Degrees, either way, added to the rotation of the variant.
        zoom: Logarithm of the scale, either way, added to the scale of the variant.

    Raises:
        ValueError: A strength is not a number of at least 0, or `grayscale` is above 1; the message
            lists all problems.
    """

    variants: bool = False
    mirror: bool = False
    grayscale: float = 0.0
    colour: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    occlusion: float = 0.0
    blur: float = 0.0
    resolution: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0

    def __post_init__(self) -> None:
        """Validates the options."""
        problems = []
        for name, value in dataclasses.asdict(self).items():
            if name in ("variants", "mirror"):
                fits, words = isinstance(value, bool), "True or False"
            elif name == "grayscale":
                fits, words = _is_number(value) and 0 <= value <= 1, "a number in 0..1"
            else:
                fits, words = _is_number(value) and value >= 0, "a number of at least 0"
            if not fits:
                problems.append(f"{name} is {value!r}, but must be {words}")
        if problems:
            raise ValueError("\n  ".join(["the augmentation's options are wrong:", *problems]))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AugmentConfig":
        """Returns the options of a dict.

        Args:
            values: The options by name; an option that is missing has its default.

        Raises:
            ValueError: An option is unknown or impossible.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(
                f"{', '.join(map(repr, unknown))} is no option of the augmentation: "
                f"the options are {', '.join(known)}"
            )
        return cls(**values)

    @property
    def is_photometric(self) -> bool:
        """Whether an operation changes pixels without moving them."""
        return dataclasses.replace(self, variants=False, mirror=False, rotation=0.0, zoom=0.0) != (
            AugmentConfig()
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
