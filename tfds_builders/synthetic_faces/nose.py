"""The nose: its shading comes from the relief, here are its class, edges and nostrils."""

import numpy as np

from . import classes, fields
from .anatomy import Anatomy
from .canvas import Canvas
from .pose import Grid

_NOSTRIL = np.array([0.3, 0.225, 0.21], np.float32)


def paint_nose(canvas: Canvas, grid: Grid, anatomy: Anatomy) -> None:
    """Classes the nose, and paints nostrils and the edges of its wings.

    Args:
      canvas: what is painted on.
      grid: of the whole frame.
      anatomy: the face's measures and colours.
    """
    root, base = anatomy.nose
    bridge, wing = anatomy.nose_width
    near = grid.window(0.0, 0.5 * (root + base), 0.36)
    t = np.clip((near.v - root) / (base - root), 0.0, 1.0)
    # The tip stands out, so it moves when the head turns.
    u = near.u - 0.22 * grid.pose.yaw * fields.smoothstep(t, 0.0, 0.85)
    half = bridge + (wing - bridge) * fields.smoothstep(t, 0.4, 0.86)
    bottom = near.v - base + 0.12 * np.square(u / wing) - 0.02
    field = np.maximum(np.maximum(np.abs(u) - half, root - near.v), bottom)
    canvas.classify(near, field, classes.NOSE)
    edge = fields.stroke_coverage(field, 0.012 * grid.unit) * fields.smoothstep(t, 0.62, 0.9)
    canvas.darken(near, 0.3 * edge)
    for side in (-1.0, 1.0):
        hole = fields.ellipse(side * u - 0.42 * wing, near.v - base + 0.005, 0.36 * wing, 0.024)
        canvas.paint(near, hole, _NOSTRIL * anatomy.skin, None, opacity=0.8)
