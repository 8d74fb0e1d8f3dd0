"""Paints the mouth: the lips and, if it is open, the inner mouth."""

import dataclasses
import math

import numpy as np

from . import classes, fields, noise
from .canvas import Canvas
from .lighting import shaded
from .pose import Grid
from .traits import Traits

_CAVITY = np.array([0.16, 0.04, 0.05], np.float32)
_TONGUE = np.array([0.66, 0.28, 0.30], np.float32)
_TEETH = np.array([0.97, 0.94, 0.87], np.float32)


@dataclasses.dataclass(frozen=True)
class _Mouth:
    """The mouth in its window; a points right, b down from the line between the lips."""

    window: Grid
    a: np.ndarray
    b: np.ndarray
    outline: np.ndarray
    """Field of the lips and the inner mouth."""
    inner_top: np.ndarray
    """b of the upper lip's lower edge."""
    inner_bottom: np.ndarray
    """b of the lower lip's upper edge."""

    @classmethod
    def of(cls, grid: Grid, traits: Traits) -> "_Mouth":
        gape, half = traits.gape, traits.mouth_width
        upper, lower = traits.lips
        window = grid.window(0.0, traits.mouth + 0.5 * gape, 0.55)
        a = window.u - 0.08 * grid.pose.yaw
        t = np.square(a / half)
        b = window.v - traits.mouth + traits.smile * (2.0 * t - 0.6)
        arc = 1.0 - t
        bow = 0.2 * upper * np.exp(-np.square(a / 0.055)) * np.clip(arc, 0.0, 1.0)
        top = -0.25 * gape * arc - upper * arc * (1.0 + 0.45 * t) + bow
        bottom = 0.75 * gape * arc + lower * arc * (1.0 + 0.35 * t)
        seam = 0.012 * np.cos(a * (2.0 * math.pi / 0.24)) * np.exp(-np.square(a / 0.16))
        # The inner corners are inside the outer ones.
        inner = gape * (1.0 - t / 0.85)
        outline = np.maximum(top - b, b - bottom)
        return cls(window, a, b, outline, seam - 0.25 * inner, seam + 0.75 * inner)


def paint_mouth(canvas: Canvas, grid: Grid, traits: Traits, rng: np.random.Generator) -> None:
    """Paints the lips and, if the mouth is open, the inner mouth.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
      rng: random number generator.
    """
    mouth = _Mouth.of(grid, traits)
    lines = 1.0 + 0.06 * noise.Line(rng)(mouth.a * 45.0)
    _paint_upper_lip(canvas, mouth, traits, lines)
    _paint_lower_lip(canvas, mouth, traits, lines, gloss=rng.uniform(0.0, 0.35))
    if traits.gape > 0.0:
        _paint_inner_mouth(canvas, mouth, traits, rng)
    else:
        line = fields.stroke_coverage(mouth.inner_top - mouth.b, 0.011 * grid.unit)
        canvas.darken(mouth.window, 0.62 * line * fields.coverage(mouth.outline))


def _paint_upper_lip(canvas: Canvas, mouth: _Mouth, traits: Traits, lines: np.ndarray) -> None:
    """Paints the entire mouth as upper lip; the other parts are painted over it."""
    height = np.clip((mouth.inner_top - mouth.b) / traits.lips[0], 0.0, 1.0)
    colour = shaded(traits.lip_colour, lines * (0.84 + 0.1 * height))
    canvas.paint(mouth.window, mouth.outline, colour, classes.UPPER_LIP)


def _paint_lower_lip(
    canvas: Canvas, mouth: _Mouth, traits: Traits, lines: np.ndarray, gloss: float
) -> None:
    """Paints the half of the mouth below the middle between the lips as lower lip."""
    lower = traits.lips[1]
    depth = mouth.b - np.clip(mouth.inner_bottom, -0.02, None)
    colour = shaded(traits.lip_colour, lines * (1.06 - 0.25 * np.square(depth / lower - 0.4)))
    shine = fields.bump(mouth.a, depth - 0.42 * lower, 0.45 * traits.mouth_width, 0.18 * lower)
    middle = 0.5 * (mouth.inner_top + mouth.inner_bottom)
    field = np.maximum(mouth.outline, middle - mouth.b)
    canvas.paint(mouth.window, field, colour + gloss * shine, classes.LOWER_LIP)


def _paint_inner_mouth(
    canvas: Canvas, mouth: _Mouth, traits: Traits, rng: np.random.Generator
) -> None:
    gape, half = traits.gape, traits.mouth_width
    window, a, b = mouth.window, mouth.a, mouth.b
    hole = np.maximum(mouth.inner_top - b, b - mouth.inner_bottom)
    canvas.paint(window, hole, _CAVITY, classes.INNER_MOUTH)
    if gape > 0.09:
        tongue = fields.ellipse(a, b - 0.78 * gape, 0.62 * half, 0.42 * gape)
        canvas.paint(window, np.maximum(tongue, hole), _TONGUE, None, opacity=0.85)
    if rng.random() < 0.85:
        t = np.square(a / half)
        length = rng.uniform(0.3, 0.75) * min(gape, 0.1)
        edge = mouth.inner_top + length * np.clip(1.2 - t, 0.0, 1.0)
        gaps = np.abs(np.sin(a * (math.pi / 0.062))) < 0.15
        light = np.clip(0.93 - 0.45 * t, 0.3, 1.0) * (1.0 - 0.1 * gaps)
        canvas.paint(window, np.maximum(hole + 0.004, b - edge), shaded(_TEETH, light), None)
