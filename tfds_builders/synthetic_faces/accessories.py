"""Paints glasses, and the occluders of a face: hands and objects."""

import math
from typing import NamedTuple

import numpy as np

from . import classes, fields
from .canvas import Canvas
from .lighting import shaded
from .pose import Grid
from .traits import Traits

# Probabilities that a face has glasses, and an occluder.
_GLASSES, _OCCLUDER = 0.17, 0.2

Lens = tuple[Grid, np.ndarray]
"""The window of a lens of glasses, and its field, which includes the frame."""


class Hand(NamedTuple):
    """A hand in front of a face."""

    point: tuple[np.ndarray, np.ndarray]
    """Each pixel's coordinates across the fingers and along them towards the wrist, (H, W)."""
    thick: float
    """Radius of a finger, in head coordinates."""


_Segment = tuple[tuple[float, float], tuple[float, float]]


def paint_glasses(
    canvas: Canvas, grid: Grid, traits: Traits, rng: np.random.Generator
) -> list[Lens]:
    """Paints glasses with thin frames on some faces; the classes do not change.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
      rng: random number generator.

    Returns:
      The lenses, none without glasses.
    """
    if rng.random() > _GLASSES:
        return []
    tones = np.array([(0.05, 0.05, 0.06), (0.25, 0.13, 0.07), (0.6, 0.6, 0.62), (0.5, 0.1, 0.1)])
    colour = tones[rng.integers(len(tones))].astype(np.float32)
    half_line = rng.uniform(0.008, 0.02) * grid.unit
    rx, ry, power = rng.uniform(0.25, 0.29), rng.uniform(0.19, 0.25), rng.uniform(2.0, 4.0)
    eye_u, eye_v = traits.eye
    glare = rng.uniform(0.0, 0.25)
    lenses = []
    for side in (-1.0, 1.0):
        window = grid.window(side * eye_u, eye_v, 0.75)
        a, b = side * window.u - eye_u, window.v - eye_v - 0.03
        lens = fields.superellipse(a, b, rx, ry, power)
        reflection = np.exp(-0.5 * np.square((a + b) / 0.06))
        canvas.blend(window, glare * reflection * fields.coverage(lens), np.ones(3, np.float32))
        # The frame's shadow on the skin is slightly wider than the frame.
        canvas.darken(window, 0.25 * fields.stroke_coverage(lens - 0.03, half_line))
        canvas.blend(window, fields.stroke_coverage(lens, half_line), colour)
        temple = np.maximum(np.maximum(rx - a, a - 0.55), np.abs(b + 0.05) - 0.014)
        on_head = np.abs(window.p) < traits.width + 0.04
        canvas.blend(window, fields.coverage(temple) * on_head, colour)
        lenses.append((window, lens - half_line / grid.unit))
    window = grid.window(0.0, eye_v, 0.3)
    arch = window.v - eye_v + 0.02 - 0.6 * np.square(window.u)
    gap = fields.coverage(np.abs(window.u) - (eye_u - rx))
    canvas.blend(window, fields.stroke_coverage(arch, half_line) * gap, colour)
    return lenses


def paint_occluder(
    canvas: Canvas, grid: Grid, traits: Traits, rng: np.random.Generator
) -> Hand | None:
    """Paints a hand or an object in front of some faces; its class is background, as in HELEN.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
      rng: random number generator.

    Returns:
      The hand, if there is one.
    """
    if rng.random() > _OCCLUDER:
        return None
    side = float(rng.choice([-1.0, 1.0]))
    eye_u, eye_v = traits.eye
    spots = (
        (side * eye_u, eye_v - 0.05),
        (0.1 * side, traits.mouth + 0.05),
        (0.5 * side, 0.35),
        (0.3 * side, traits.chin),
        (0.1 * side, 0.2),
    )
    spot = spots[rng.choice(len(spots), p=(0.42, 0.22, 0.14, 0.12, 0.1))]
    if rng.random() < 0.55:
        return _paint_hand(canvas, grid, traits, spot, side, rng)
    _paint_object(canvas, grid, spot, rng)
    return None


def paint_sleeve(canvas: Canvas, grid: Grid, hand: Hand, colour: np.ndarray) -> None:
    """Paints the sleeve of a hand's arm, which ends outside the picture, as cloth.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      hand: the hand.
      colour: RGB of the cloth, (3,).
    """
    _paint_limb(
        canvas, grid, hand.point, ((0.0, 1.5), (0.0, 12.0)), 3.2 * hand.thick, colour, classes.CLOTH
    )


def _paint_hand(
    canvas: Canvas,
    grid: Grid,
    traits: Traits,
    at: tuple[float, float],
    side: float,
    rng: np.random.Generator,
) -> Hand:
    """Paints a hand whose fingers point from below and outside to a point of the face."""
    angle = rng.uniform(-0.3, 0.7)
    cos, sin = math.cos(angle), math.sin(angle) * side
    dx, dy = grid.p - at[0], grid.q - at[1]
    # The first coordinate is across the fingers, the second along them towards the wrist.
    hand = cos * dx - sin * dy, cos * dy + sin * dx
    tone = np.clip(traits.skin * rng.uniform(0.85, 1.05), 0.0, 1.0)
    thick = rng.uniform(0.085, 0.105)
    _paint_limb(canvas, grid, hand, ((0.0, 1.0), (0.0, 2.4)), 2.4 * thick, tone)
    _paint_limb(canvas, grid, hand, ((0.0, 0.72), (0.0, 0.8)), 3.5 * thick, tone)
    for finger, reach in enumerate((0.12, 0.0, 0.03, 0.17)):
        root = (finger - 1.5) * 1.7 * thick
        tip = root * rng.uniform(1.0, 1.15)
        _paint_limb(canvas, grid, hand, ((tip, reach - 0.2), (root, 0.55)), thick, tone)
        nail = fields.ellipse(hand[0] - tip, hand[1] - reach + 0.22, 0.55 * thick, 0.7 * thick)
        canvas.paint(grid, nail, np.minimum(1.06 * tone, 1.0), None, opacity=0.7)
    return Hand(hand, thick)


def _paint_limb(
    canvas: Canvas,
    grid: Grid,
    hand: tuple[np.ndarray, np.ndarray],
    segment: _Segment,
    radius: float,
    tone: np.ndarray,
    label: int = classes.BACKGROUND,
) -> None:
    """Paints a capsule, lit from the viewer, and its shadow on the pixels around it."""
    field = fields.capsule(*hand, segment, radius)
    depth = np.clip(-field / radius, 0.0, 1.0)
    light = 0.55 + 0.48 * np.sqrt(depth)
    canvas.darken(grid, 0.35 * np.exp(-np.maximum(field, 0.0) / 0.04))
    canvas.paint(grid, field, shaded(tone, light), label)


def _paint_object(
    canvas: Canvas, grid: Grid, at: tuple[float, float], rng: np.random.Generator
) -> None:
    """Paints a card, a cup or a stick of one or two colours."""
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
