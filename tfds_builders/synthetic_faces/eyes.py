"""Paints the eyes: eyelids, lashes and the visible eyeballs."""

import dataclasses

import numpy as np

from . import classes, fields
from .canvas import Canvas
from .lighting import Lamp, shaded
from .pose import Grid
from .traits import Traits

_LASH = np.array([0.07, 0.04, 0.04], np.float32)
_PUPIL = np.array([0.02, 0.01, 0.01], np.float32)
_SCLERA = np.array([0.95, 0.93, 0.92], np.float32)
_GLINT = np.array([1.0, 1.0, 1.0], np.float32)
_IRIS_RADIUS = 0.09
# Thickness of the upper lid's row of lashes, which is part of the class.
_RIM = 0.03
# Thickness of a closed eye, from the lid's shadow to the seam.
_SEAM = 0.075


@dataclasses.dataclass(frozen=True)
class _Eye:
    """One eye in its window; from its centre, a points outwards from the nose and b downwards."""

    side: float
    label: int
    opening: float
    window: Grid
    a: np.ndarray
    b: np.ndarray
    half: float
    height: float

    @classmethod
    def of(cls, grid: Grid, traits: Traits, side: float, label: int, opening: float) -> "_Eye":
        window = grid.window(side * traits.eye[0], traits.eye[1], 0.36)
        a, b = window.beside(side, traits.eye, traits.eye_slant)
        return cls(side, label, opening, window, a, b, *traits.eye_size)

    @property
    def arc(self) -> np.ndarray:
        """1 in the middle, 0 at the corners, negative beyond them."""
        return 1.0 - np.square(self.a / self.half)


def paint_eyes(
    canvas: Canvas, grid: Grid, traits: Traits, lamp: Lamp, rng: np.random.Generator
) -> None:
    """Paints both eyes; the class covers the visible eyeball and its rim, or the seam of the lids.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
      lamp: the light source.
      rng: random number generator.
    """
    shadow = rng.uniform(0.15, 0.5) if traits.feminine and rng.random() < 0.5 else 0.0
    shadow_colour = rng.uniform(0.1, 0.6, 3)
    lashes = rng.uniform(0.9, 1.4) if traits.feminine else rng.uniform(0.5, 0.9)
    sides = ((-1.0, classes.LEFT_EYE), (1.0, classes.RIGHT_EYE))
    for (side, label), opening in zip(sides, traits.lids, strict=True):
        eye = _Eye.of(grid, traits, side, label, opening)
        above = fields.bump(eye.a, eye.b + 1.1 * eye.height, eye.half, 0.6 * eye.height)
        canvas.blend(eye.window, shadow * above, shadow_colour)
        _paint_crease(canvas, eye)
        if opening > 0.0:
            ball = _paint_rim(canvas, eye, lashes)
            _paint_eyeball(canvas, eye, ball, traits, lamp)
        else:
            _paint_closed(canvas, eye, traits)
        if traits.feminine:
            _paint_lashes(canvas, eye, lashes, rng)


def _paint_crease(canvas: Canvas, eye: _Eye) -> None:
    crease = -eye.height * eye.arc * (1.1 + 0.35 * eye.opening) - 0.02
    line = np.exp(-0.5 * np.square((eye.b - crease) / 0.012)) * np.clip(eye.arc + 0.1, 0.0, 1.0)
    canvas.darken(eye.window, 0.38 * line)


def _paint_rim(canvas: Canvas, eye: _Eye, lashes: float) -> np.ndarray:
    """Paints the rim over the entire eye; returns the field of the eyeball inside the rim."""
    a, b, arc = eye.a, eye.b, eye.arc
    # The upper lid is highest towards the nose, the lower one lowest towards the temple.
    top = -eye.height * arc * (1.0 - 0.25 * a / eye.half) * (1.45 * eye.opening - 0.45)
    bottom = 0.5 * eye.height * arc * (1.0 + 0.2 * a / eye.half)
    rim = _RIM * lashes * np.clip(arc + 0.15, 0.0, 1.0)
    canvas.darken(eye.window, 0.3 * np.exp(-np.square((b - bottom - 0.01) / 0.014)) * (arc > 0.0))
    canvas.paint(eye.window, np.maximum(top - b - rim, b - bottom - 0.008), _LASH, eye.label)
    return np.maximum(top - b, b - bottom)


def _paint_eyeball(canvas: Canvas, eye: _Eye, ball: np.ndarray, traits: Traits, lamp: Lamp) -> None:
    a, b, window = eye.a, eye.b, eye.window
    light = 0.97 - 0.22 * np.square(a / eye.half)
    light -= 0.25 * fields.bump(a, b + eye.height, 2.0, 0.03)
    canvas.paint(window, ball, shaded(_SCLERA, light), None)
    x = a - eye.side * traits.gaze[0] * eye.half
    y = b + 0.2 * eye.height - traits.gaze[1] * eye.height
    r = np.sqrt(x * x + y * y)
    glow = 0.55 + 0.75 * r / _IRIS_RADIUS + 0.35 * np.clip(y / _IRIS_RADIUS, -1.0, 1.0)
    canvas.paint(window, np.maximum(r - _IRIS_RADIUS, ball), 0.4 * traits.iris, None)
    iris = np.maximum(r - 0.86 * _IRIS_RADIUS, ball)
    canvas.paint(window, iris, shaded(traits.iris, glow), None)
    canvas.paint(window, np.maximum(r - 0.4 * _IRIS_RADIUS, ball), _PUPIL, None)
    lamp_x, lamp_y, _ = lamp.direction
    glint = fields.ellipse(x - 0.045 * eye.side * lamp_x, y + 0.01 - 0.05 * lamp_y, 0.021, 0.021)
    canvas.paint(window, np.maximum(glint, ball), _GLINT, None, opacity=0.95)
    lid_shadow = np.exp(-np.maximum(-ball, 0.0) / 0.02) * (b < 0.0)
    canvas.darken(window, 0.35 * lid_shadow * fields.coverage(ball))


def _paint_closed(canvas: Canvas, eye: _Eye, traits: Traits) -> None:
    """Paints the seam of the lids: a crescent, lowest in the middle."""
    arc = eye.arc
    below = eye.b - 0.5 * eye.height * arc
    beyond = np.maximum(np.abs(eye.a) - eye.half, 0.0)
    field = np.maximum(-below - _SEAM * np.clip(arc, 0.0, 1.0), below) + beyond
    # The edge of the lid is in shadow, and its lashes are dark.
    light = 0.8 - 0.35 * np.clip(below / _SEAM + 1.0, 0.0, 1.0)
    canvas.paint(eye.window, field, shaded(traits.skin, light), eye.label)
    line = np.abs(below + 0.012) - 0.018 * np.clip(arc + 0.1, 0.0, 1.0)
    canvas.paint(eye.window, np.maximum(line, field), _LASH, None, opacity=0.9)


def _paint_lashes(canvas: Canvas, eye: _Eye, length: float, rng: np.random.Generator) -> None:
    """Paints single lashes beyond the outline of the eye; they do not change the classes."""
    up = -1.0 if eye.opening else 0.7
    for t in np.linspace(-0.5, 0.97, 9).tolist():
        arc = 1.0 - t * t
        lid = 0.5 * eye.height * arc
        if eye.opening:
            lid = -eye.height * arc * (1.0 - 0.25 * t) * (1.45 * eye.opening - 0.45)
            lid -= 0.7 * _RIM * arc
        root = (t * eye.half, lid)
        reach = length * rng.uniform(0.03, 0.055)
        tip = (root[0] + reach * (t + 0.35), root[1] + up * reach * (1.0 - 0.4 * abs(t)))
        pixels = fields.capsule(eye.a, eye.b, (root, tip), 0.0) * eye.window.unit
        canvas.blend(eye.window, np.clip(0.8 - pixels, 0.0, 0.5), _LASH)
