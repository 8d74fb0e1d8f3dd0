"""Hair that hangs to shoulders, chest or waist, behind the shoulders or in front of them."""

import dataclasses

import numpy as np

from . import classes, fields, hair
from .canvas import Canvas
from .hair import Hairstyle
from .pose import Grid
from .traits import Traits

# q of the ends of hair to the shoulders, the chest and the waist, and their probabilities.
_LENGTHS = ((1.6, 2.2), (2.5, 3.7), (4.2, 5.6))
_LENGTH_SHARES = (0.3, 0.42, 0.28)
# Hair down to this q is drawn with the head.
_HEAD_END = 0.8


@dataclasses.dataclass(frozen=True)
class LongHair:
    """The part of the hair below the chin; lengths are in head coordinates."""

    end: float
    """q of the ends."""
    sides: tuple[bool, bool]
    """Whether the hair of each side, side 0 first, hangs in front of the shoulder."""
    spread: float
    """How far the hair at the shoulders is outside that beside the cheeks."""
    inner: float
    """Distance from the middle to the hair on the chest."""
    taper: float
    """Fraction of its width that the hair loses towards its ends."""
    phase: float
    """Phase of the waves."""

    @classmethod
    def sample(cls, rng: np.random.Generator, hairstyle: Hairstyle) -> "LongHair | None":
        """Samples the lower part of a hairstyle.

        Args:
          rng: random number generator.
          hairstyle: the style of the hair on the head.

        Returns:
          The lower part; None for short hair.
        """
        bob = hairstyle.end < 0.9
        if hairstyle.back < 0.0 or (bob and rng.random() < 0.6):
            return None
        end = rng.uniform(*_LENGTHS[rng.choice(len(_LENGTHS), p=_LENGTH_SHARES)])
        sides = ((True, True), (True, False), (False, True), (False, False))
        return cls(
            end=end,
            sides=sides[rng.choice(4, p=(0.62, 0.13, 0.13, 0.12))],
            spread=rng.uniform(0.0, 0.35),
            inner=rng.uniform(0.35, 0.75),
            taper=rng.uniform(0.2, 0.7),
            phase=rng.uniform(0.0, 6.0),
        )

    def above(self, hairstyle: Hairstyle) -> Hairstyle:
        """Returns the style of the hair on the head and behind the neck."""
        return dataclasses.replace(hairstyle, end=1.1, back=max(self.end, 1.3))


def paint_locks(
    canvas: Canvas, grid: Grid, traits: Traits, hairstyle: Hairstyle, long: LongHair
) -> None:
    """Paints the hair in front of the shoulders, as a continuation of the hair on the head.

    Args:
      canvas: the canvas to paint on.
      grid: the bent grid.
      traits: the face's measures and colours.
      hairstyle: the style of the hair on the head.
      long: the hair below it.
    """
    p = grid.p - 0.12 * grid.pose.yaw
    q = grid.q - 0.5 * grid.pose.pitch
    below = np.maximum(q - _HEAD_END, 0.0)
    wave = 0.07 * hairstyle.curl**0.5 * np.minimum(below, 1.0)
    p = p + wave * np.sin(4.5 * q + long.phase + np.sign(p))
    across = _across(np.abs(p), q, below, traits, hairstyle, long)
    inner, outer = hairstyle.opening, traits.width + 0.03 + hairstyle.volume
    straight = np.sign(p) * (inner + across * (outer - inner)) + 0.12 * grid.pose.yaw
    # The strands run along the locks, and on the head where the head's hair has them.
    bounded = np.minimum(grid.q, _HEAD_END + 0.3 * below)
    along = dataclasses.replace(grid, p=straight, q=bounded)
    strands = hair.strand_coordinates(along, hairstyle)
    ends = q - long.end + 0.22 * hair.ragged_ends(strands, hairstyle)
    ends += 0.5 * np.square(across - 0.5)
    edge = 0.05 * hairstyle.curl * np.sin(9.0 * q + 2.0 * np.sign(p))
    field = np.maximum(-across, across - 1.0 - edge) * (outer - inner)
    field = np.maximum(np.maximum(field, 0.35 * ends), 0.1 - q)
    for side, shown in zip((-1.0, 1.0), long.sides, strict=True):
        if not shown:
            field = np.where(side * grid.p > 0.0, 1.0, field)
    shadow = np.exp(-np.maximum(field, 0.0) / 0.07) * fields.smoothstep(q, 0.9, 1.5)
    canvas.darken(
        grid, 0.4 * shadow * (canvas.label[grid.rows, grid.columns] != classes.BACKGROUND)
    )
    light = 1.0 - fields.smoothstep(below, 0.2, 1.2) * (0.3 - 0.3 * np.clip(across, 0.0, 1.0))
    mixed = traits.skin + hairstyle.density * (traits.hair - traits.skin)
    colour = hair.texture(along, strands, mixed, hairstyle) * light
    canvas.paint(grid, field, colour, classes.HAIR)


def _across(
    side: np.ndarray,
    q: np.ndarray,
    below: np.ndarray,
    traits: Traits,
    hairstyle: Hairstyle,
    long: LongHair,
) -> np.ndarray:
    """Returns the position across a lock: 0 at its inner edge, 1 at its outer edge."""
    inner, outer = hairstyle.opening, traits.width + 0.03 + hairstyle.volume
    step = fields.smoothstep(below, 0.0, 1.4)
    low = inner + step * (long.inner - inner)
    high = outer + step * long.spread
    late = fields.smoothstep(below, 1.0, max(long.end - _HEAD_END, 1.2)) * long.taper
    middle = 0.45 * low + 0.55 * high
    low, high = low + late * (middle - low), high + late * (middle - high)
    return (side - low) / (high - low)
