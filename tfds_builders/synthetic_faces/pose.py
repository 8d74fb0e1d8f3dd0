"""The head's pose in the frame: pixels, head coordinates and face coordinates.

Pixel (row, column) has its centre at (x, y) = (column + 0.5, row + 0.5).
Head coordinates (p, q), p to the right and q down, rotate in the image plane and scale with the
head; the chin is near q = 1, the eyes are near q = 0. Face coordinates (u, v) are on the head's
curved surface: near the middle of a frontal head they are about (p, q); yaw and pitch shift them.
"""

import dataclasses
import math

import numpy as np

# Radii of the face's surface, in head coordinates.
_RADIUS_U, _RADIUS_V = 1.05, 1.5


@dataclasses.dataclass(frozen=True)
class Pose:
    """Position and rotation of a head. Angles are in radians, lengths in fractions of the frame."""

    x: float
    """Distance of the head's origin, about midway between the eyes, from the left."""
    y: float
    """Distance of the head's origin from the top."""
    unit: float
    """Length of one unit of head coordinates."""
    tilt: float
    """Rotation in the image plane; positive is clockwise."""
    yaw: float
    """Rotation about the vertical axis; positive is towards the viewer's right."""
    pitch: float
    """Rotation about the horizontal axis; positive is downwards."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Pose":
        """Samples a pose; most heads fill the frame, smaller ones are placed more freely."""
        unit = rng.uniform(0.31, 0.44)
        room = 0.44 - unit
        yaw, pitch, tilt = rng.normal(0.0, (0.12, 0.05, 0.13))
        return cls(
            x=0.5 + rng.uniform(-1.0, 1.0) * (0.03 + 0.7 * room),
            y=0.47 + 0.08 * unit + rng.uniform(-1.0, 1.0) * (0.02 + 0.5 * room),
            unit=unit,
            tilt=float(np.clip(tilt, -0.4, 0.4)),
            yaw=float(np.clip(yaw, -0.27, 0.27)),
            pitch=float(np.clip(pitch, -0.1, 0.1)),
        )


@dataclasses.dataclass(frozen=True)
class Grid:
    """A window of the frame, with the coordinates of its pixels' centres; arrays are (H, W)."""

    pose: Pose
    size: int
    """Side of the frame in pixels."""
    rows: slice
    columns: slice
    p: np.ndarray
    q: np.ndarray
    u: np.ndarray
    v: np.ndarray

    @classmethod
    def of(cls, pose: Pose, size: int) -> "Grid":
        """Returns the grid of the full frame.

        Args:
          pose: pose of the head.
          size: side of the frame in pixels.

        Returns:
          The grid, with arrays of shape (size, size).
        """
        centres = (np.arange(size, dtype=np.float32) + 0.5) / size
        x = (centres - pose.x)[np.newaxis, :] / pose.unit
        y = (centres - pose.y)[:, np.newaxis] / pose.unit
        cos, sin = math.cos(pose.tilt), math.sin(pose.tilt)
        p, q = cos * x + sin * y, cos * y - sin * x
        full = slice(0, size)
        return cls.over(pose, size, (full, full), p, q)

    @classmethod
    def over(
        cls, pose: Pose, size: int, window: tuple[slice, slice], p: np.ndarray, q: np.ndarray
    ) -> "Grid":
        """Returns the grid of pixels with known head coordinates.

        Args:
          pose: pose of the head.
          size: side of the frame in pixels.
          window: rows and columns of the pixels.
          p: horizontal head coordinates, float (H, W).
          q: vertical head coordinates, float (H, W).

        Returns:
          The grid.
        """
        u = _RADIUS_U * (np.arcsin(np.clip(p / _RADIUS_U, -1.0, 1.0)) - pose.yaw)
        v = _RADIUS_V * (np.arcsin(np.clip(q / _RADIUS_V, -1.0, 1.0)) - pose.pitch)
        return cls(pose, size, *window, p, q, u, v)

    @property
    def unit(self) -> float:
        """Pixels per unit of head coordinates."""
        return self.pose.unit * self.size

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (H, W) of this window."""
        return self.p.shape

    def window(self, u: float, v: float, radius: float) -> "Grid":
        """Returns the part of the full frame's grid around a point of the face.

        Args:
          u: horizontal face coordinate of the point.
          v: vertical face coordinate of the point.
          radius: half the window's side, in head coordinates.

        Returns:
          The grid of a window, clipped to the frame; at least 2 x 2 pixels.
        """
        head_p = _RADIUS_U * math.sin(u / _RADIUS_U + self.pose.yaw)
        head_q = _RADIUS_V * math.sin(v / _RADIUS_V + self.pose.pitch)
        cos, sin = math.cos(self.pose.tilt), math.sin(self.pose.tilt)
        x = self.pose.x * self.size + self.unit * (cos * head_p - sin * head_q)
        y = self.pose.y * self.size + self.unit * (sin * head_p + cos * head_q)
        rows = self._clip(y - radius * self.unit, y + radius * self.unit)
        columns = self._clip(x - radius * self.unit, x + radius * self.unit)
        cut = [array[rows, columns] for array in (self.p, self.q, self.u, self.v)]
        return Grid(self.pose, self.size, rows, columns, *cut)

    def beside(
        self, side: float, centre: tuple[float, float], slant: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns coordinates around one of two paired parts.

        Args:
          side: -1 for the part on the viewer's left, 1 for the part on the right.
          centre: (u, v) of the part on the right.
          slant: angle by which its outer end is raised, in radians.

        Returns:
          (a, b), each (H, W): a outwards from the nose, b downwards.
        """
        a, b = side * self.u - centre[0], self.v - centre[1]
        cos, sin = math.cos(slant), math.sin(slant)
        return cos * a - sin * b, cos * b + sin * a

    def _clip(self, low: float, high: float) -> slice:
        start = min(max(int(low), 0), self.size - 2)
        return slice(start, min(max(int(high) + 2, start + 2), self.size))
