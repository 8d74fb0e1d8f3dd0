"""The brows."""

import numpy as np

from . import classes, fields, noise
from .anatomy import Anatomy
from .canvas import Canvas
from .pose import Grid


def paint_brows(canvas: Canvas, grid: Grid, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Paints both brows, of one kind, with the hairs' texture.

    Args:
      canvas: what is painted on.
      grid: of the whole frame.
      anatomy: the face's measures and colours.
      rng: source of what is random.
    """
    opacity = rng.uniform(0.65, 0.95)
    taper = rng.uniform(0.35, 0.8)
    colour = anatomy.hair * rng.uniform(0.5, 0.95) + 0.08 * anatomy.skin
    half, thick = anatomy.brow_size
    for side, label in ((-1.0, classes.LEFT_BROW), (1.0, classes.RIGHT_BROW)):
        near = grid.window(side * anatomy.brow[0], anatomy.brow[1], 0.4)
        slant = anatomy.brow_slant + rng.normal(0.0, 0.03)
        a, b = near.beside(side, anatomy.brow, slant)
        t = a / half
        middle = -anatomy.brow_arch * (1.0 - np.square(t - 0.15))
        # Thick next to the nose, thin at the temple, rounded at both ends.
        ends = np.sqrt(np.maximum(1.0 - t**4, 0.0))
        width = thick * (1.0 - taper * fields.smoothstep(t, -0.3, 1.0)) * ends
        outside = np.maximum(np.abs(t) - 1.0, 0.0) * half
        field = np.abs(b - middle) - width + outside
        hairs = 1.0 + 0.2 * noise.Line(rng)(a * 70.0 + b * 110.0)
        canvas.paint(near, field, colour, label, np.clip(opacity * hairs, 0.0, 1.0))
