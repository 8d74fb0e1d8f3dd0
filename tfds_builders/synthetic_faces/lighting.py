"""The lamp, and how the relief of a face shows under it."""

import dataclasses
import math

import numpy as np

from . import fields
from .anatomy import Anatomy
from .pose import Grid


@dataclasses.dataclass(frozen=True)
class Lamp:
    """One far lamp and the light that comes from everywhere."""

    direction: tuple[float, float, float]
    """Unit vector towards the lamp: right, down, towards the viewer."""
    ambient: float
    """Share of the light that comes from everywhere."""
    gloss: float
    """Strength of the highlights on the skin."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Lamp":
        """Draws a lamp, mostly from above and in front."""
        x, y = rng.uniform(-0.85, 0.85), rng.uniform(-0.75, 0.1)
        length = math.sqrt(x * x + y * y + 1.0)
        return cls(
            direction=(x / length, y / length, 1.0 / length),
            ambient=rng.uniform(0.35, 0.62),
            gloss=rng.uniform(0.03, 0.28),
        )

    def shade(self, height: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
        """Lights a surface.

        Args:
          height: float (H, W), towards the viewer, in head coordinates.
          unit: pixels per unit of head coordinates.

        Returns:
          (light, highlight), both (H, W): what the surface's colour is multiplied by, about 1
          where it faces the viewer, and what is added to it.
        """
        slope_y, slope_x = np.gradient(height)
        slope_x *= -unit
        slope_y *= -unit
        scale = 1.0 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1.0)
        x, y, z = self.direction
        facing = np.maximum((x * slope_x + y * slope_y + z) * scale, 0.0)
        light = self.ambient + (1.0 - self.ambient) * facing / (0.35 + 0.65 * z)
        # Blinn's half vector between the lamp and the viewer.
        norm = math.sqrt(2.0 + 2.0 * z)
        half = np.maximum((x * slope_x + y * slope_y + z + 1.0) * scale / norm, 0.0)
        half *= half
        half *= half
        half *= half
        return light, self.gloss * half * half * half


def shaded(colour: np.ndarray, light: np.ndarray) -> np.ndarray:
    """A colour under light.

    Args:
      colour: RGB, (3,).
      light: float (H, W), what the colour is multiplied by.

    Returns:
      float (3, H, W).
    """
    return colour[:, np.newaxis, np.newaxis] * light


def tint(light: np.ndarray) -> np.ndarray:
    """Colours light as skin does, whose shadows are redder; (H, W) gives (3, H, W)."""
    light = np.maximum(light, 0.02)
    return np.stack([light**0.8, light, light**1.08])


def relief(grid: Grid, anatomy: Anatomy) -> np.ndarray:
    """Returns the height of the face towards the viewer.

    Args:
      grid: of the whole frame, or a window of it.
      anatomy: the face's measures and colours.

    Returns:
      float (H, W), in head coordinates.
    """
    p, q, u, v = grid.p, grid.q, grid.u, grid.v
    dome = 1.0 - np.square((p - 0.2 * grid.pose.yaw) / 0.95) - np.square((q + 0.05) / 1.35)
    height = 0.75 * np.sqrt(np.maximum(dome, 0.02))
    eye_u, eye_v = anatomy.eye
    side = np.abs(u)
    height += -0.055 * fields.bump(side - 0.9 * eye_u, v - eye_v, 0.15, 0.1)
    height += 0.03 * fields.bump(side - eye_u, v - eye_v, 0.11, 0.07)
    height += 0.03 * fields.bump(side - anatomy.brow[0], v - anatomy.brow[1] - 0.03, 0.24, 0.07)
    height += 0.055 * fields.bump(side - 0.43, v - 0.24, 0.17, 0.15)
    height += 0.05 * fields.bump(u, v - anatomy.mouth, 0.3, 0.2)
    height += 0.05 * fields.bump(u, v - anatomy.chin + 0.12, 0.16, 0.1)
    height -= 0.025 * fields.bump(u, v - anatomy.mouth - anatomy.lips[1] - 0.09, 0.16, 0.045)
    height += _nose_relief(u, v, anatomy)
    return height


def _nose_relief(u: np.ndarray, v: np.ndarray, anatomy: Anatomy) -> np.ndarray:
    root, base = anatomy.nose
    bridge, wing = anatomy.nose_width
    t = np.clip((v - root) / (base - root), -0.5, 1.2)
    rise = fields.smoothstep(t, -0.15, 0.85) * (1.0 - fields.smoothstep(t, 0.82, 1.08))
    width = bridge + 0.35 * (wing - bridge) * fields.smoothstep(t, 0.3, 0.9)
    ridge = (0.06 + 0.15 * rise) * rise * np.exp(-0.5 * np.square(u / width))
    tip = 0.08 * fields.bump(u, v - base + 0.08, 0.085, 0.07)
    wings = 0.045 * fields.bump(np.abs(u) - 0.75 * wing, v - base + 0.06, 0.045, 0.05)
    return ridge + tip + wings
