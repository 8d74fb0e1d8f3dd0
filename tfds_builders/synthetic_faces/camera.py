"""Simulates a camera: uneven light, colour cast, blur and noise."""

import numpy as np
from PIL import Image, ImageFilter

from . import fields, noise


def photograph(scene: np.ndarray, rng: np.random.Generator, side: float) -> np.ndarray:
    """Converts a painted scene to an image with a camera's faults; moves no pixel.

    Args:
      scene: float32 (3, H, W), 0 black and 1 white; highlights may exceed 1.
      rng: random number generator.
      side: side of the frame of a head in pixels, to which blur is proportional.

    Returns:
      uint8 (H, W, 3).
    """
    image = scene * _uneven_light(scene.shape[1:], rng)
    image *= rng.uniform(0.92, 1.08, 3).astype(np.float32)[:, np.newaxis, np.newaxis]
    gray = image.mean(axis=0)
    image = gray + rng.uniform(0.65, 1.15) * (image - gray)
    image = np.clip(image, 0.0, 1.0) ** np.float32(rng.uniform(0.8, 1.12))
    sharp = Image.fromarray((255.0 * image.transpose(1, 2, 0) + 0.5).astype(np.uint8))
    if rng.random() < 0.35:
        radius = rng.uniform(0.3, 1.3) * side / 256
        sharp = sharp.filter(ImageFilter.GaussianBlur(radius))
    if rng.random() < 0.5:
        return np.array(sharp)
    grain = rng.standard_normal((*scene.shape[1:], 3), dtype=np.float32)
    noisy = np.asarray(sharp) + rng.uniform(1.0, 9.0) * grain
    return np.clip(noisy + 0.5, 0.0, 255.0).astype(np.uint8)


def _uneven_light(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Returns a slope of light and, on some images, the soft edge of a shadow; (H, W)."""
    y, x = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in shape)
    angle, slope = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.0, 0.45)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    along = cos * x[np.newaxis, :] + sin * y[:, np.newaxis]
    light = rng.uniform(0.9, 1.1) + slope * along
    if rng.random() < 0.22:
        wobble = along + 0.05 * noise.plane(rng, (5, 5), shape)
        edge, softness = rng.uniform(-0.25, 0.25), rng.uniform(0.01, 0.12)
        light -= rng.uniform(0.2, 0.45) * fields.smoothstep(wobble, edge, edge + softness)
    return light
