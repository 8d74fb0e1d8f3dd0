"""Smooth random functions that do not depend on the size of the image."""

import numpy as np
from PIL import Image


def plane(rng: np.random.Generator, cells: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Returns random values on a coarse lattice, interpolated.

    Args:
      rng: random number generator.
      cells: (rows, columns) of the lattice.
      shape: (rows, columns) of the result.

    Returns:
      float32 of the given shape, with mean about 0 and standard deviation about 0.8, or less if
      the lattice is finer than the result.
    """
    lattice = Image.fromarray(rng.standard_normal(cells, dtype=np.float32))
    return np.asarray(lattice.resize(shape[::-1], Image.Resampling.BICUBIC))


class Line:
    """A random function of one variable, with one lattice value per unit and period 256."""

    _PERIOD = 256

    def __init__(self, rng: np.random.Generator):
        """Samples the lattice's values."""
        self._values = rng.uniform(-1.0, 1.0, self._PERIOD).astype(np.float32)
        self._steps = np.roll(self._values, -1) - self._values

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns the function's values in [-1, 1] at `x`."""
        low = np.floor(x)
        index = low.astype(np.int32) & (self._PERIOD - 1)
        t = x - low
        return self._values[index] + self._steps[index] * (t * t * (3.0 - 2.0 * t))
