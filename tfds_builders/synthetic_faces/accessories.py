"""Glasses, and what gets in front of a face: a hand, a thing."""

import math

import numpy as np

from . import classes, fields
from .anatomy import Anatomy
from .canvas import Canvas
from .lighting import shaded
from .pose import Grid

# Shares of the faces that have them.
_GLASSES, _OCCLUDERS = 0.17, 0.2

_Segment = tuple[tuple[float, float], tuple[float, float]]


def paint_glasses(canvas: Canvas, grid: Grid, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Paints thin frames on some faces; what is behind the frames keeps its class.

    Args:
      canvas: what is painted on.
      grid: of the whole frame.
      anatomy: the face's measures and colours.
      rng: source of what is random.
    """
    if rng.random() > _GLASSES:
        return
    tones = np.array([(0.05, 0.05, 0.06), (0.25, 0.13, 0.07), (0.6, 0.6, 0.62), (0.5, 0.1, 0.1)])
    colour = tones[rng.integers(len(tones))].astype(np.float32)
    half_line = rng.uniform(0.008, 0.02) * grid.unit
    rx, ry, power = rng.uniform(0.25, 0.29), rng.uniform(0.19, 0.25), rng.uniform(2.0, 4.0)
    eye_u, eye_v = anatomy.eye
    glare = rng.uniform(0.0, 0.25)
    for side in (-1.0, 1.0):
        near = grid.window(side * eye_u, eye_v, 0.75)
        a, b = side * near.u - eye_u, near.v - eye_v - 0.03
        lens = fields.superellipse(a, b, rx, ry, power)
        reflection = np.exp(-0.5 * np.square((a + b) / 0.06))
        canvas.blend(near, glare * reflection * fields.coverage(lens), np.ones(3, np.float32))
        # The frame's shadow on the skin, a little wider than the frame.
        canvas.darken(near, 0.25 * fields.stroke_coverage(lens - 0.03, half_line))
        canvas.blend(near, fields.stroke_coverage(lens, half_line), colour)
        temple = np.maximum(np.maximum(rx - a, a - 0.55), np.abs(b + 0.05) - 0.014)
        on_head = np.abs(near.p) < anatomy.width + 0.04
        canvas.blend(near, fields.coverage(temple) * on_head, colour)
    near = grid.window(0.0, eye_v, 0.3)
    arch = near.v - eye_v + 0.02 - 0.6 * np.square(near.u)
    gap = fields.coverage(np.abs(near.u) - (eye_u - rx))
    canvas.blend(near, fields.stroke_coverage(arch, half_line) * gap, colour)


def paint_occluder(canvas: Canvas, grid: Grid, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Puts a hand or a thing in front of some faces; its pixels are background, as in HELEN.

    Args:
      canvas: what is painted on.
      grid: of the whole frame.
      anatomy: the face's measures and colours.
      rng: source of what is random.
    """
    if rng.random() > _OCCLUDERS:
        return
    side = float(rng.choice([-1.0, 1.0]))
    eye_u, eye_v = anatomy.eye
    spots = (
        (side * eye_u, eye_v - 0.05),
        (0.1 * side, anatomy.mouth + 0.05),
        (0.5 * side, 0.35),
        (0.3 * side, anatomy.chin),
        (0.1 * side, 0.2),
    )
    spot = spots[rng.choice(len(spots), p=(0.42, 0.22, 0.14, 0.12, 0.1))]
    if rng.random() < 0.55:
        _paint_hand(canvas, grid, anatomy, spot, side, rng)
    else:
        _paint_thing(canvas, grid, spot, rng)


def _paint_hand(
    canvas: Canvas,
    grid: Grid,
    anatomy: Anatomy,
    at: tuple[float, float],
    side: float,
    rng: np.random.Generator,
) -> None:
    """Fingers point from the lower outside to a point of the face."""
    angle = rng.uniform(-0.3, 0.7)
    cos, sin = math.cos(angle), math.sin(angle) * side
    dx, dy = grid.p - at[0], grid.q - at[1]
    # The first runs across the fingers, the second along them towards the wrist.
    hand = cos * dx - sin * dy, cos * dy + sin * dx
    tone = np.clip(anatomy.skin * rng.uniform(0.85, 1.05), 0.0, 1.0)
    thick = rng.uniform(0.085, 0.105)
    _paint_limb(canvas, grid, hand, ((0.0, 1.0), (0.0, 2.4)), 2.4 * thick, tone)
    _paint_limb(canvas, grid, hand, ((0.0, 0.72), (0.0, 0.8)), 3.5 * thick, tone)
    for finger, reach in enumerate((0.12, 0.0, 0.03, 0.17)):
        root = (finger - 1.5) * 1.7 * thick
        tip = root * rng.uniform(1.0, 1.15)
        _paint_limb(canvas, grid, hand, ((tip, reach - 0.2), (root, 0.55)), thick, tone)
        nail = fields.ellipse(hand[0] - tip, hand[1] - reach + 0.22, 0.55 * thick, 0.7 * thick)
        canvas.paint(grid, nail, np.minimum(1.06 * tone, 1.0), None, opacity=0.7)


def _paint_limb(
    canvas: Canvas,
    grid: Grid,
    hand: tuple[np.ndarray, np.ndarray],
    segment: _Segment,
    radius: float,
    tone: np.ndarray,
) -> None:
    """Paints a rounded stick, lit from the viewer, with its shadow on what is behind."""
    field = fields.capsule(*hand, segment, radius)
    depth = np.clip(-field / radius, 0.0, 1.0)
    light = 0.55 + 0.48 * np.sqrt(depth)
    canvas.darken(grid, 0.35 * np.exp(-np.maximum(field, 0.0) / 0.04))
    canvas.paint(grid, field, shaded(tone, light), classes.BACKGROUND)


def _paint_thing(
    canvas: Canvas, grid: Grid, at: tuple[float, float], rng: np.random.Generator
) -> None:
    """A card, a cup or a stick of one or two colours."""
    angle = rng.uniform(-math.pi, math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = grid.p - at[0], grid.q - at[1]
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    rx, ry, power = [
        (rng.uniform(0.25, 0.45), rng.uniform(0.22, 0.38), 6.0),
        (rng.uniform(0.24, 0.4), rng.uniform(0.24, 0.4), 2.0),
        (rng.uniform(0.06, 0.11), rng.uniform(0.7, 1.5), 8.0),
    ][rng.integers(3)]
    field = fields.superellipse(x, y, rx, ry, power)
    colour, second = rng.uniform(0.05, 0.95, (2, 3)).astype(np.float32)
    light = np.clip(0.85 + 0.35 * x / rx - 0.1 * y / ry, 0.3, 1.2)
    canvas.darken(grid, 0.35 * np.exp(-np.maximum(field, 0.0) / 0.05))
    canvas.paint(grid, field, np.minimum(shaded(colour, light), 1.0), classes.BACKGROUND)
    print_field = fields.superellipse(x, y, 0.6 * rx, 0.5 * ry, power)
    canvas.paint(grid, print_field, second, None, opacity=rng.uniform(0.0, 1.0))
