"""The body below a head: its coordinates, its outline, and the skin of neck and chest."""

import dataclasses
import math

import numpy as np

from . import classes, fields, lighting
from .canvas import Canvas
from .lighting import Lamp
from .pose import Grid, Pose
from .traits import Traits

# The body is tilted by this fraction of the head's tilt; the neck bends around this q.
_LEAN, _PIVOT = 0.25, 0.75
_NECK_END = 3.0


@dataclasses.dataclass(frozen=True)
class Build:
    """Measures of a body, in units of head coordinates."""

    shoulder: float
    """Half the width of the shoulders."""
    drop: float
    """Height of the neck's foot above the tips of the shoulders."""
    neck: float
    """Half the width of the neck."""

    @classmethod
    def sample(cls, rng: np.random.Generator, traits: Traits) -> "Build":
        """Samples a body for a face."""
        broad = 0.0 if traits.feminine else 0.2
        return cls(
            shoulder=rng.uniform(1.8, 2.15) + broad,
            drop=rng.uniform(0.25, 0.5),
            neck=traits.width * (rng.uniform(0.55, 0.62) + 0.3 * broad),
        )

    def outline(self, grid: Grid) -> np.ndarray:
        """Returns the field of shoulders, arms and trunk, without the neck.

        Args:
          grid: the bent grid.

        Returns:
          float (H, W).
        """
        side, q = np.abs(grid.p), grid.q
        across = np.minimum(side / self.shoulder, 1.2)
        top = 1.38 + self.drop * across**1.3 + 0.8 * across**10
        # The muscle between neck and shoulder.
        top -= 0.2 * np.exp(-np.square(np.maximum(side - 0.3, 0.0) / 0.28))
        arms = self.shoulder + 0.08 + 0.05 * np.maximum(q - 2.5, 0.0)
        return np.maximum(top - q, side - arms)


def bent_grid(pose: Pose, size: int, shape: tuple[int, int]) -> Grid:
    """Returns a grid that follows the head above the chin, and below it hangs almost upright.

    Args:
      pose: pose of the head in a square frame.
      size: side of the frame in pixels.
      shape: (H, W) of the grid, which starts in the frame's upper left corner and may exceed it.

    Returns:
      The grid; q = 1 is near the chin, and the shoulders are near q = 2.
    """
    height, width = shape
    x = ((np.arange(width, dtype=np.float32) + 0.5) / size - pose.x)[np.newaxis, :] / pose.unit
    y = ((np.arange(height, dtype=np.float32) + 0.5) / size - pose.y)[:, np.newaxis] / pose.unit
    p, q = _rotated(x, y, pose.tilt)
    pivot_x, pivot_y = -_PIVOT * math.sin(pose.tilt), _PIVOT * math.cos(pose.tilt)
    body_p, body_q = _rotated(x - pivot_x, y - pivot_y, _LEAN * pose.tilt)
    weight = fields.smoothstep(q, 0.4, 1.7)
    p += weight * (body_p - p)
    q += weight * (body_q + _PIVOT - q)
    return Grid.over(pose, size, (slice(0, height), slice(0, width)), p, q)


def paint_skin(canvas: Canvas, grid: Grid, traits: Traits, build: Build, lamp: Lamp) -> None:
    """Paints neck and chest as neck, shaded below the chin.

    Args:
      canvas: the canvas to paint on.
      grid: the bent grid.
      traits: the face's measures and colours.
      build: the body's measures.
      lamp: the light source.
    """
    p, q = grid.p, grid.q
    side = np.abs(p)
    flare = 0.5 * np.square(np.maximum(q - 1.0, 0.0))
    column = np.maximum(np.maximum(side - build.neck - flare, 0.2 - q), q - 1.9)
    chest = np.maximum(build.outline(grid) + 0.03, q - _NECK_END)
    field = np.minimum(column, chest)
    round_ = np.maximum(1.0 - np.square(p / (build.neck + 0.12 + flare)), 0.02)
    light, _ = lamp.shade(0.45 * np.sqrt(round_), grid.unit)
    light *= 1.0 - 0.5 * fields.smoothstep(traits.chin + 0.75 - 0.5 * side - q, 0.0, 0.75)
    light *= 1.0 - _hollows(side, q, build)
    canvas.paint(grid, field, traits.skin[:, None, None] * lighting.tint(light), classes.NECK)


def _rotated(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _hollows(side: np.ndarray, q: np.ndarray, build: Build) -> np.ndarray:
    """Returns the light that the hollows along windpipe and collarbones absorb."""
    muscle = 0.12 + (build.neck - 0.1) * np.clip((1.75 - q) / 0.8, 0.0, 1.0)
    cord = np.exp(-np.square((side - muscle + 0.1) / 0.06)) * fields.smoothstep(q, 1.1, 1.5)
    cord *= 1.0 - fields.smoothstep(q, 1.7, 1.85)
    bone = q - 1.88 + 0.12 * side
    bones = np.exp(-np.square((bone - 0.05) / 0.05)) - 0.5 * np.exp(
        -np.square((bone + 0.06) / 0.06)
    )
    bones *= fields.smoothstep(side, 0.08, 0.25) * (1.0 - fields.smoothstep(side, 0.9, 1.4))
    return 0.14 * cord + 0.16 * bones + 0.2 * fields.bump(side, q - 1.8, 0.09, 0.09)
