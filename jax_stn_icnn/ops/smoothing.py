"""Smoothing of logits with a binomial filter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_stn_icnn.ops.platform import current_implementations

KERNEL = np.array((1, 2, 1)) / 4  # binomial


def smooth(x: jax.Array) -> jax.Array:
    """Returns images filtered by (1, 2, 1) / 4 along both axes; edge pixels are repeated.

    `depth_to_space` computes neighbouring pixels with kernels of their own, so that where two
    classes are nearly equally likely, neighbours differ by their kernels only: the checkerboard
    artifacts of Odena et al., "Deconvolution and Checkerboard Artifacts" (2016).

    Args:
        x: (batch, channels, height, width).

    Returns:
        The same shape.
    """
    if current_implementations().space_to_depth:
        # A TPU shifts pixels within a row slowly.
        down, across = (jnp.asarray(_smoothing_matrix(n), x.dtype) for n in x.shape[2:])
        return jnp.einsum("yh,bchw,xw->bcyx", down, x, across, precision="highest")
    reach = len(KERNEL) // 2
    for axis in (2, 3):
        size = x.shape[axis]
        first, last = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, size - 1))
        padded = jnp.concatenate([first] * reach + [x] + [last] * reach, axis)
        shifted = [lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(KERNEL))]
        x = functools.reduce(jnp.add, (float(w) * s for w, s in zip(KERNEL, shifted, strict=True)))
    return x


def _smoothing_matrix(size: int) -> np.ndarray:
    """Returns the matrix that smooths a row of pixels, (size, size)."""
    index = np.arange(size)
    matrix = np.zeros((size, size))
    for i, weight in enumerate(KERNEL):
        np.add.at(matrix, (index, np.clip(index + i - len(KERNEL) // 2, 0, size - 1)), weight)
    return matrix
