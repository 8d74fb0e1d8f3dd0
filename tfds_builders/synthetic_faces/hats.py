"""Paints hats: knitted caps, caps with a visor, and hats with a brim."""

import dataclasses

import numpy as np

from . import classes, fields
from .canvas import Canvas
from .hair import Hairstyle
from .lighting import shaded
from .pose import Grid
from .traits import Traits

_HAT = 0.16
_KINDS = ("beanie", "cap", "brim")


@dataclasses.dataclass(frozen=True)
class Hat:
    """A hat; lengths are in head coordinates."""

    kind: str
    """One of beanie, cap and brim."""
    line: float
    """q of its lower edge in the middle."""
    height: float
    """How far its top is above the skull's."""
    brim: float
    """Half the width of the brim."""
    colours: np.ndarray
    """RGB of hat and band, (2, 3)."""
    pompom: bool

    @classmethod
    def sample(cls, rng: np.random.Generator, traits: Traits, share: float = _HAT) -> "Hat | None":
        """Samples a hat.

        Args:
          rng: random number generator.
          traits: the face's measures.
          share: probability of a hat.

        Returns:
          The hat; None without one.
        """
        worn = rng.random() < share
        kind = str(rng.choice(_KINDS, p=(0.4, 0.35, 0.25)))
        tones = rng.uniform(0.08, 0.85, (2, 1)) + rng.normal(0.0, 0.14, (2, 3))
        hat = cls(
            kind=kind,
            line=traits.brow[1] - rng.uniform(0.1, 0.3),
            height=rng.uniform(0.06, 0.3),
            brim=rng.uniform(1.35, 1.75),
            colours=np.clip(tones, 0.04, 0.95).astype(np.float32),
            pompom=bool(rng.random() < 0.4),
        )
        return hat if worn else None

    def under(self, hairstyle: Hairstyle) -> Hairstyle:
        """Returns the hairstyle pressed flat by the hat."""
        return dataclasses.replace(hairstyle, volume=min(hairstyle.volume, 0.12))


def paint_hat(canvas: Canvas, grid: Grid, traits: Traits, hairstyle: Hairstyle, hat: Hat) -> None:
    """Paints a hat over the hair, and its shadow on the face.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures.
      hairstyle: the hair under the hat.
      hat: the hat.
    """
    p, q = grid.p - 0.12 * grid.pose.yaw, grid.q - 0.5 * grid.pose.pitch
    half = traits.width + 0.1 + hairstyle.volume
    below = q - hat.line - 0.12 * np.square(p)
    tall = 1.12 + hairstyle.volume + hat.height
    crown = np.maximum(fields.superellipse(p, q + 0.2, half, tall, 2.3), below)
    shadow = np.exp(-np.maximum(below, 0.0) / (0.08 if hat.kind == "beanie" else 0.25))
    on_head = canvas.label[grid.rows, grid.columns] != classes.BACKGROUND
    canvas.darken(grid, 0.5 * shadow * on_head * (np.abs(p) < half))
    light = 1.05 - 0.55 * np.square(p / half) + 0.25 * np.clip(-q - 0.7, -0.3, 0.5)
    if hat.kind == "beanie":
        _paint_beanie(canvas, grid, (p, q), (half, tall), crown, below, light, hat)
        return
    panels = np.exp(-np.square(np.sin(3.0 * p / half) * half / 0.03)) * (hat.kind == "cap")
    _paint(canvas, grid, crown, hat.colours[0], light * (1.0 - 0.25 * panels))
    if hat.kind == "cap":
        visor = fields.superellipse(p, below - 0.02, 0.8 * half, 0.17, 2.4)
        _paint(canvas, grid, visor, hat.colours[1], 1.0 - 1.3 * np.maximum(below, -0.2))
        return
    band = np.maximum(crown, -below - 0.3)
    _paint(canvas, grid, band, hat.colours[1], 0.95 * light)
    brim = fields.ellipse(p, below + 0.03, hat.brim, 0.2)
    _paint(canvas, grid, brim, hat.colours[0], 0.85 - 0.9 * below - 0.1 * np.abs(p))


def _paint_beanie(
    canvas: Canvas,
    grid: Grid,
    point: tuple[np.ndarray, np.ndarray],
    size: tuple[float, float],
    crown: np.ndarray,
    below: np.ndarray,
    light: np.ndarray,
    hat: Hat,
) -> None:
    p, q = point
    half, tall = size
    if hat.pompom:
        distance = np.hypot(p, q + 0.2 + tall)
        fluff = 0.03 * np.sin(9.0 * np.arctan2(p, q + 0.2 + tall))
        _paint(canvas, grid, distance - 0.2 - fluff, hat.colours[1], 1.1 - 1.2 * distance)
    # The ribs meet at the top.
    height = np.clip((q + 0.2 + tall) / tall, 0.03, 1.0)
    around = np.arcsin(np.clip(p / (half * np.sqrt(height * (2.0 - height))), -1.0, 1.0))
    ribs = 1.0 + 0.12 * np.sin(42.0 * around)
    _paint(canvas, grid, crown, hat.colours[0], light * ribs)
    fold = np.maximum(np.maximum(crown - 0.03, below), -below - 0.32)
    canvas.darken(grid, 0.35 * np.exp(-np.maximum(fold, 0.0) / 0.04) * (crown < 0.0))
    wide = 1.0 + 0.14 * np.sin(42.0 * around) - 0.6 * np.square(below / 0.32 + 0.5)
    _paint(canvas, grid, fold, hat.colours[1], light * wide)


def _paint(
    canvas: Canvas, grid: Grid, field: np.ndarray, colour: np.ndarray, light: np.ndarray
) -> None:
    canvas.paint(grid, field, np.clip(shaded(colour, light), 0.0, 1.0), classes.HAT)
