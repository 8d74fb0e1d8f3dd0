"""Paints neck, ears and the skin of the face with lines, freckles, blush and beard."""

import numpy as np

from . import classes, fields, lighting, noise
from .canvas import Canvas
from .lighting import Lamp
from .pose import Grid
from .traits import Traits


def paint_neck(canvas: Canvas, grid: Grid, traits: Traits, lamp: Lamp) -> None:
    """Paints the neck.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
      lamp: the light source.
    """
    half = 0.57 * traits.width + 0.8 * np.square(np.maximum(grid.q - 1.05, 0.0))
    field = np.maximum(np.abs(grid.p) - half, 0.2 - grid.q)
    light, _ = lamp.shade(0.5 * np.sqrt(np.maximum(0.36 - grid.p * grid.p, 0.01)), grid.unit)
    light *= 1.0 - 0.45 * fields.bump(grid.p, grid.q - traits.chin, 0.6, 0.22)
    canvas.paint(grid, field, _coloured(traits.skin, light), classes.NECK)


def paint_ears(canvas: Canvas, grid: Grid, traits: Traits) -> None:
    """Paints the ears.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
    """
    yaw = grid.pose.yaw
    for side, label in ((-1.0, classes.LEFT_EAR), (1.0, classes.RIGHT_EAR)):
        window = grid.window(side * (traits.width + 0.02), 0.02, 0.4)
        u = side * window.p - traits.width + 0.02 + 0.25 * side * yaw
        v = window.q - 0.02 - 0.8 * grid.pose.pitch
        field = fields.ellipse(u - 0.06 * v, v, 0.115, 0.22)
        inner = fields.bump(u - 0.03, v + 0.02, 0.045, 0.1)
        light = np.clip(0.86 - 0.4 * inner - 0.6 * np.maximum(-u, 0.0), 0.2, 1.0)
        canvas.paint(window, field, _coloured(traits.skin, light), label)


def paint_face(
    canvas: Canvas, grid: Grid, traits: Traits, lamp: Lamp, rng: np.random.Generator
) -> None:
    """Paints the face as skin; the other parts are painted over it.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
      lamp: the light source.
      rng: random number generator.
    """
    light, highlight = lamp.shade(lighting.relief(grid, traits), grid.unit)
    light *= 1.0 - _creases(grid, traits)
    light *= 1.0 + rng.uniform(0.005, 0.02) * noise.plane(rng, (90, 90), grid.shape)
    light *= 1.0 + 0.03 * noise.plane(rng, (9, 9), grid.shape)
    colour = _coloured(traits.skin, light)
    _redden(colour, grid, traits, rng.uniform(0.0, 0.22))
    if rng.random() < 0.15:
        _freckle(colour, grid, rng)
    colour += highlight
    canvas.paint(grid, traits.face_field(grid), colour, classes.SKIN)


def paint_beard(canvas: Canvas, grid: Grid, traits: Traits, rng: np.random.Generator) -> None:
    """Paints stubble, a beard or a moustache on some faces; the classes do not change.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
      rng: random number generator.
    """
    if traits.feminine or rng.random() < 0.45:
        return
    kind = rng.choice(["stubble", "full", "goatee", "moustache"], p=[0.4, 0.25, 0.15, 0.2])
    u, v, mouth = grid.u, grid.v, traits.mouth
    lip = mouth - traits.lips[0]
    moustache = fields.bump(u, v - lip + 0.035 - 0.35 * u * u, 0.6 * traits.mouth_width, 0.032)
    side = np.abs(u)
    jaw = fields.smoothstep(v - 0.75 * u * u + 0.45 * np.maximum(0.45 - side, 0.0), 0.42, 0.62)
    sideburns = fields.smoothstep(side, 0.52, 0.66) * fields.smoothstep(v, -0.1, 0.2)
    jaw = np.maximum(jaw, sideburns)
    chin = fields.bump(u, v - traits.chin + 0.1, 0.17, 0.15)
    amount = {
        "stubble": np.maximum(jaw, moustache) * 0.38,
        "full": np.maximum(jaw, moustache) * 0.9,
        "goatee": np.minimum(np.maximum(chin, moustache) * 1.3, 0.92),
        "moustache": np.minimum(moustache * 1.5, 0.92),
    }[str(kind)]
    grain = 1.0 + 0.35 * noise.plane(rng, (220, 160), grid.shape)
    below = fields.coverage(traits.face_field(grid))
    colour = np.minimum(0.8 * traits.hair + 0.12 * traits.skin, 0.75 * traits.skin)
    shades = lighting.shaded(colour, 0.5 + 0.5 * grain)
    canvas.blend(grid, np.clip(amount * grain, 0.0, 0.95) * below, shades)


def _coloured(skin: np.ndarray, light: np.ndarray) -> np.ndarray:
    return skin[:, np.newaxis, np.newaxis] * lighting.tint(light)


def _creases(grid: Grid, traits: Traits) -> np.ndarray:
    """Returns the fraction of light that creases absorb, (H, W) in [0, 1)."""
    u, v, side = grid.u, grid.v, np.abs(grid.u)
    eye_u, eye_v = traits.eye
    root, base = traits.nose
    dark = 0.16 * fields.bump(side - 0.62 * eye_u, v - eye_v + 0.02, 0.09, 0.09)
    dark += (0.05 + 0.16 * traits.age) * fields.bump(side - eye_u, v - eye_v - 0.14, 0.14, 0.03)
    dark += 0.25 * fields.bump(u, v - base - 0.035, 0.15, 0.03)
    dark += 0.14 * fields.bump(u, v - traits.mouth - traits.lips[1] - 0.06, 0.15, 0.03)
    fold_u = traits.nose_width[1] + 0.05 + 0.32 * (v - base + 0.08) + 0.6 * traits.smile
    along = np.exp(-0.5 * np.square((v - base - 0.1) / 0.1))
    fold = np.exp(-0.5 * np.square((side - fold_u) / 0.022)) * along
    dark += (0.06 + 0.28 * traits.age + 1.2 * max(traits.smile, 0.0)) * fold
    if traits.age > 0.3:
        dark += 0.28 * (traits.age - 0.3) * _forehead_lines(u, v, traits)
    return np.minimum(dark, 0.8)


def _forehead_lines(u: np.ndarray, v: np.ndarray, traits: Traits) -> np.ndarray:
    height = v - traits.brow[1] + 0.05 * np.cos(5.0 * u)
    waves = np.maximum(np.sin(2.0 * np.pi * height / 0.09), 0.0) ** 4
    return waves * fields.bump(u, height + 0.22, 0.3, 0.08)


def _redden(colour: np.ndarray, grid: Grid, traits: Traits, amount: float) -> None:
    side = np.abs(grid.u)
    blush = fields.bump(side - 0.42, grid.v - 0.22, 0.17, 0.13)
    blush += 0.6 * fields.bump(side, grid.v - traits.nose[1] + 0.07, 0.12, 0.07)
    colour[1:] *= 1.0 - amount * blush


def _freckle(colour: np.ndarray, grid: Grid, rng: np.random.Generator) -> None:
    spots = fields.smoothstep(noise.plane(rng, (130, 130), grid.shape), 0.9, 1.6)
    where = fields.bump(np.abs(grid.u) - 0.25, grid.v - 0.15, 0.25, 0.15)
    colour *= 1.0 - 0.35 * spots * where * np.array([0.6, 1.0, 1.0], np.float32)[:, None, None]
