"""Paints the nose: its class, edges and nostrils. The relief of the face provides its shading."""

import numpy as np

from . import classes, fields
from .canvas import Canvas
from .pose import Grid
from .traits import Traits

_NOSTRIL = np.array([0.3, 0.225, 0.21], np.float32)


def paint_nose(canvas: Canvas, grid: Grid, traits: Traits) -> None:
    """Sets the class of the nose, and paints the nostrils and the edges of its wings.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
    """
    root, base = traits.nose
    bridge, wing = traits.nose_width
    window = grid.window(0.0, 0.5 * (root + base), 0.36)
    t = np.clip((window.v - root) / (base - root), 0.0, 1.0)
    # The tip protrudes, so it moves with the head's yaw.
    u = window.u - 0.22 * grid.pose.yaw * fields.smoothstep(t, 0.0, 0.85)
    half = bridge + (wing - bridge) * fields.smoothstep(t, 0.4, 0.86)
    bottom = window.v - base + 0.12 * np.square(u / wing) - 0.02
    field = np.maximum(np.maximum(np.abs(u) - half, root - window.v), bottom)
    canvas.classify(window, field, classes.NOSE)
    edge = fields.stroke_coverage(field, 0.012 * grid.unit) * fields.smoothstep(t, 0.62, 0.9)
    canvas.darken(window, 0.3 * edge)
    for side in (-1.0, 1.0):
        hole = fields.ellipse(side * u - 0.42 * wing, window.v - base + 0.005, 0.36 * wing, 0.024)
        canvas.paint(window, hole, _NOSTRIL * traits.skin, None, opacity=0.8)
