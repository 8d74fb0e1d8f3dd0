"""The light source, and the shading of a face's relief."""

import dataclasses
import math

import numpy as np

from . import fields
from .pose import Grid
from .traits import Traits


@dataclasses.dataclass(frozen=True)
class Lamp:
    """One distant lamp, and ambient light."""

    direction: tuple[float, float, float]
    """Unit vector towards the lamp: right, down, towards the viewer."""
    ambient: float
    """Fraction of the light that is ambient."""
    gloss: float
    """Strength of the highlights on the skin."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Lamp":
        """Samples a lamp, mostly above and in front of the face."""
        x, y = rng.uniform(-0.85, 0.85), rng.uniform(-0.75, 0.1)
        length = math.sqrt(x * x + y * y + 1.0)
        return cls(
            direction=(x / length, y / length, 1.0 / length),
            ambient=rng.uniform(0.35, 0.62),
            gloss=rng.uniform(0.03, 0.28),
        )

    def shade(self, height: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
        """Computes the light and the highlights of a surface.

        Args:
          height: height towards the viewer, float (H, W), in head coordinates.
          unit: pixels per unit of head coordinates.

        Returns:
          (light, highlight), both (H, W): the factor of the surface's colour, about 1 where the
          surface faces the viewer, and the summand.
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
    """Multiplies a colour by light.

    Args:
      colour: RGB, (3,).
      light: float (H, W), the factor.

    Returns:
      float (3, H, W).
    """
    return colour[:, np.newaxis, np.newaxis] * light


def tint(light: np.ndarray) -> np.ndarray:
    """Returns light (H, W) as RGB light (3, H, W) on skin, whose shadows are redder."""
    light = np.maximum(light, 0.02)
    return np.stack([light**0.8, light, light**1.08])


def relief(grid: Grid, traits: Traits) -> np.ndarray:
    """Returns the height of the face towards the viewer.

    Args:
      grid: the grid of the full frame or of a window.
      traits: the face's measures and colours.

    Returns:
      float (H, W), in head coordinates.
    """
    p, q, u, v = grid.p, grid.q, grid.u, grid.v
    dome = 1.0 - np.square((p - 0.2 * grid.pose.yaw) / 0.95) - np.square((q + 0.05) / 1.35)
    height = 0.75 * np.sqrt(np.maximum(dome, 0.02))
    eye_u, eye_v = traits.eye
    side = np.abs(u)
    height += -0.055 * fields.bump(side - 0.9 * eye_u, v - eye_v, 0.15, 0.1)
    height += 0.03 * fields.bump(side - eye_u, v - eye_v, 0.11, 0.07)
    height += 0.03 * fields.bump(side - traits.brow[0], v - traits.brow[1] - 0.03, 0.24, 0.07)
    height += 0.055 * fields.bump(side - 0.43, v - 0.24, 0.17, 0.15)
    height += 0.05 * fields.bump(u, v - traits.mouth, 0.3, 0.2)
    height += 0.05 * fields.bump(u, v - traits.chin + 0.12, 0.16, 0.1)
    height -= 0.025 * fields.bump(u, v - traits.mouth - traits.lips[1] - 0.09, 0.16, 0.045)
    height += _nose_relief(u, v, traits)
    return height


def _nose_relief(u: np.ndarray, v: np.ndarray, traits: Traits) -> np.ndarray:
    root, base = traits.nose
    bridge, wing = traits.nose_width
    t = np.clip((v - root) / (base - root), -0.5, 1.2)
    rise = fields.smoothstep(t, -0.15, 0.85) * (1.0 - fields.smoothstep(t, 0.82, 1.08))
    width = bridge + 0.35 * (wing - bridge) * fields.smoothstep(t, 0.3, 0.9)
    ridge = (0.06 + 0.15 * rise) * rise * np.exp(-0.5 * np.square(u / width))
    tip = 0.08 * fields.bump(u, v - base + 0.08, 0.085, 0.07)
    wings = 0.045 * fields.bump(np.abs(u) - 0.75 * wing, v - base + 0.06, 0.045, 0.05)
    return ridge + tip + wings
