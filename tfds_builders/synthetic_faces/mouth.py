"""The mouth: lips and, where it is open, what is between them."""

import dataclasses
import math

import numpy as np

from . import classes, fields, noise
from .anatomy import Anatomy
from .canvas import Canvas
from .lighting import shaded
from .pose import Grid

_CAVITY = np.array([0.16, 0.04, 0.05], np.float32)
_TONGUE = np.array([0.66, 0.28, 0.30], np.float32)
_TEETH = np.array([0.97, 0.94, 0.87], np.float32)


@dataclasses.dataclass(frozen=True)
class _Mouth:
    """The mouth in its window: a to the right, b down from the line between the lips."""

    near: Grid
    a: np.ndarray
    b: np.ndarray
    outline: np.ndarray
    """Field of both lips and what is between them."""
    inner_top: np.ndarray
    """b of the upper lip's lower edge; likewise the lower lip's upper edge."""
    inner_bottom: np.ndarray

    @classmethod
    def of(cls, grid: Grid, anatomy: Anatomy) -> "_Mouth":
        gape, half = anatomy.gape, anatomy.mouth_width
        upper, lower = anatomy.lips
        near = grid.window(0.0, anatomy.mouth + 0.5 * gape, 0.55)
        a = near.u - 0.08 * grid.pose.yaw
        t = np.square(a / half)
        b = near.v - anatomy.mouth + anatomy.smile * (2.0 * t - 0.6)
        arc = 1.0 - t
        bow = 0.2 * upper * np.exp(-np.square(a / 0.055)) * np.clip(arc, 0.0, 1.0)
        top = -0.25 * gape * arc - upper * arc * (1.0 + 0.45 * t) + bow
        bottom = 0.75 * gape * arc + lower * arc * (1.0 + 0.35 * t)
        seam = 0.012 * np.cos(a * (2.0 * math.pi / 0.24)) * np.exp(-np.square(a / 0.16))
        # The inner corners lie inside of the outer ones.
        inner = gape * (1.0 - t / 0.85)
        outline = np.maximum(top - b, b - bottom)
        return cls(near, a, b, outline, seam - 0.25 * inner, seam + 0.75 * inner)


def paint_mouth(canvas: Canvas, grid: Grid, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Paints the lips and, where the mouth is open, what is between them.

    Args:
      canvas: what is painted on.
      grid: of the whole frame.
      anatomy: the face's measures and colours.
      rng: source of what is random.
    """
    mouth = _Mouth.of(grid, anatomy)
    lines = 1.0 + 0.06 * noise.Line(rng)(mouth.a * 45.0)
    _paint_upper_lip(canvas, mouth, anatomy, lines)
    _paint_lower_lip(canvas, mouth, anatomy, lines, gloss=rng.uniform(0.0, 0.35))
    if anatomy.gape > 0.0:
        _paint_inner_mouth(canvas, mouth, anatomy, rng)
    else:
        line = fields.stroke_coverage(mouth.inner_top - mouth.b, 0.011 * grid.unit)
        canvas.darken(mouth.near, 0.62 * line * fields.coverage(mouth.outline))


def _paint_upper_lip(canvas: Canvas, mouth: _Mouth, anatomy: Anatomy, lines: np.ndarray) -> None:
    """Paints the whole mouth as upper lip; the rest comes on top."""
    height = np.clip((mouth.inner_top - mouth.b) / anatomy.lips[0], 0.0, 1.0)
    colour = shaded(anatomy.lip_colour, lines * (0.84 + 0.1 * height))
    canvas.paint(mouth.near, mouth.outline, colour, classes.UPPER_LIP)


def _paint_lower_lip(
    canvas: Canvas, mouth: _Mouth, anatomy: Anatomy, lines: np.ndarray, gloss: float
) -> None:
    """Paints everything below the middle between the lips as lower lip."""
    lower = anatomy.lips[1]
    depth = mouth.b - np.clip(mouth.inner_bottom, -0.02, None)
    colour = shaded(anatomy.lip_colour, lines * (1.06 - 0.25 * np.square(depth / lower - 0.4)))
    shine = fields.bump(mouth.a, depth - 0.42 * lower, 0.45 * anatomy.mouth_width, 0.18 * lower)
    middle = 0.5 * (mouth.inner_top + mouth.inner_bottom)
    field = np.maximum(mouth.outline, middle - mouth.b)
    canvas.paint(mouth.near, field, colour + gloss * shine, classes.LOWER_LIP)


def _paint_inner_mouth(
    canvas: Canvas, mouth: _Mouth, anatomy: Anatomy, rng: np.random.Generator
) -> None:
    gape, half = anatomy.gape, anatomy.mouth_width
    near, a, b = mouth.near, mouth.a, mouth.b
    hole = np.maximum(mouth.inner_top - b, b - mouth.inner_bottom)
    canvas.paint(near, hole, _CAVITY, classes.INNER_MOUTH)
    if gape > 0.09:
        tongue = fields.ellipse(a, b - 0.78 * gape, 0.62 * half, 0.42 * gape)
        canvas.paint(near, np.maximum(tongue, hole), _TONGUE, None, opacity=0.85)
    if rng.random() < 0.85:
        t = np.square(a / half)
        length = rng.uniform(0.3, 0.75) * min(gape, 0.1)
        edge = mouth.inner_top + length * np.clip(1.2 - t, 0.0, 1.0)
        gaps = np.abs(np.sin(a * (math.pi / 0.062))) < 0.15
        light = np.clip(0.93 - 0.45 * t, 0.3, 1.0) * (1.0 - 0.1 * gaps)
        canvas.paint(near, np.maximum(hole + 0.004, b - edge), shaded(_TEETH, light), None)
