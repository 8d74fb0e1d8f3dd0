"""Shapes as scalar fields: negative inside, zero on the outline, positive outside.

A field need not be a distance: only its sign and its outline matter. Image and label are computed
from the same field at the pixels' centres, so they agree by construction.
"""

import numpy as np


def coverage(field: np.ndarray) -> np.ndarray:
    """Returns the fraction of each pixel that a shape covers.

    The field divided by the length of its gradient is the distance to the outline in pixels, to
    first order; a pixel whose centre is on the outline is half covered.

    Args:
      field: float (H, W), smooth near the outline.

    Returns:
      float (H, W) in [0, 1].
    """
    return np.clip(0.5 - _pixel_distance(field), 0.0, 1.0)


def stroke_coverage(field: np.ndarray, half_width: float) -> np.ndarray:
    """Returns the fraction of each pixel that a line along the outline of a shape covers.

    Args:
      field: float (H, W).
      half_width: half the line's width in pixels; may be below 0.5.

    Returns:
      float (H, W) in [0, 1].
    """
    distance = np.abs(_pixel_distance(field))
    return np.clip(half_width + 0.5 - distance, 0.0, min(1.0, 2.0 * half_width))


def ellipse(x: np.ndarray, y: np.ndarray, rx: float, ry: float) -> np.ndarray:
    """Returns the field of an ellipse around the origin, scaled as a distance near its outline.

    Args:
      x: float (H, W), the pixels' horizontal coordinates.
      y: float (H, W), the pixels' vertical coordinates.
      rx: half the width, in units of `x` and `y`.
      ry: half the height, in units of `x` and `y`.

    Returns:
      float (H, W).
    """
    return (np.square(x / rx) + np.square(y / ry) - 1.0) * (0.5 * min(rx, ry))


def superellipse(x: np.ndarray, y: np.ndarray, rx: float, ry: float, power: float) -> np.ndarray:
    """Returns the field of |x / rx|**power + |y / ry|**power = 1.

    Power 2 is an ellipse, a larger power a box with rounded corners.

    Args:
      x: float (H, W), the pixels' horizontal coordinates.
      y: float (H, W), the pixels' vertical coordinates.
      rx: half the width, in units of `x` and `y`.
      ry: half the height, in units of `x` and `y`.
      power: above 0.

    Returns:
      float (H, W).
    """
    return (np.abs(x / rx) ** power + np.abs(y / ry) ** power - 1.0) * (min(rx, ry) / power)


def capsule(
    x: np.ndarray,
    y: np.ndarray,
    ends: tuple[tuple[float, float], tuple[float, float]],
    radius: float,
) -> np.ndarray:
    """Returns the field of the points within `radius` of the segment between two points.

    Args:
      x: float (H, W), the pixels' horizontal coordinates.
      y: float (H, W), the pixels' vertical coordinates.
      ends: (x, y) of the two points, which differ.
      radius: in units of `x` and `y`; 0 or more.

    Returns:
      float (H, W): the distance to the segment, less the radius.
    """
    start, end = ends
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy)
    along = np.clip(along, 0.0, 1.0)
    across_x, across_y = x - start[0] - along * dx, y - start[1] - along * dy
    return np.sqrt(np.square(across_x) + np.square(across_y)) - radius


def bump(x: np.ndarray, y: np.ndarray, sx: float, sy: float) -> np.ndarray:
    """Returns a Gaussian of height 1 around the origin.

    Args:
      x: float (H, W), the pixels' horizontal coordinates.
      y: float (H, W), the pixels' vertical coordinates.
      sx: standard deviation along `x`, in its units.
      sy: standard deviation along `y`, in its units.

    Returns:
      float (H, W) in [0, 1].
    """
    return np.exp(-0.5 * (np.square(x / sx) + np.square(y / sy)))


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns a smooth step from 0 at `low` to 1 at `high`.

    Args:
      x: float (H, W).
      low: the step is 0 below it.
      high: the step is 1 above it; larger than `low`.

    Returns:
      float (H, W) in [0, 1].
    """
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _pixel_distance(field: np.ndarray) -> np.ndarray:
    dy, dx = np.gradient(field)
    return field / (np.sqrt(dx * dx + dy * dy) + np.float32(1e-6))
