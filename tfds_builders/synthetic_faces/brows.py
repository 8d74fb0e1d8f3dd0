"""Paints the brows."""

import numpy as np

from . import classes, fields, noise
from .canvas import Canvas
from .pose import Grid
from .traits import Traits


def paint_brows(canvas: Canvas, grid: Grid, traits: Traits, rng: np.random.Generator) -> None:
    """Paints both brows, in the same style, with the texture of hairs.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
      rng: random number generator.
    """
    opacity = rng.uniform(0.65, 0.95)
    taper = rng.uniform(0.35, 0.8)
    colour = traits.hair * rng.uniform(0.5, 0.95) + 0.08 * traits.skin
    half, thick = traits.brow_size
    for side, label in ((-1.0, classes.LEFT_BROW), (1.0, classes.RIGHT_BROW)):
        window = grid.window(side * traits.brow[0], traits.brow[1], 0.4)
        slant = traits.brow_slant + rng.normal(0.0, 0.03)
        a, b = window.beside(side, traits.brow, slant)
        t = a / half
        middle = -traits.brow_arch * (1.0 - np.square(t - 0.15))
        # Thick next to the nose, thin at the temple, rounded at both ends.
        ends = np.sqrt(np.maximum(1.0 - t**4, 0.0))
        width = thick * (1.0 - taper * fields.smoothstep(t, -0.3, 1.0)) * ends
        outside = np.maximum(np.abs(t) - 1.0, 0.0) * half
        field = np.abs(b - middle) - width + outside
        hairs = 1.0 + 0.2 * noise.Line(rng)(a * 70.0 + b * 110.0)
        canvas.paint(window, field, colour, label, np.clip(opacity * hairs, 0.0, 1.0))
