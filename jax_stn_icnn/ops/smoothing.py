"""Smoothing of logits with a binomial filter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

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
    reach = len(KERNEL) // 2
    for axis in (2, 3):
        size = x.shape[axis]
        first, last = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, size - 1))
        padded = jnp.concatenate([first] * reach + [x] + [last] * reach, axis)
        shifted = [lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(KERNEL))]
        x = functools.reduce(jnp.add, (float(w) * s for w, s in zip(KERNEL, shifted, strict=True)))
    return x


def smooth_blocks(features: jax.Array, side: int) -> jax.Array:
    """Returns `smooth(depth_to_space(features, side))` as two products.

    A TPU shifts pixels within a row slowly.

    Args:
        features: As for `depth_to_space`.
        side: As for `depth_to_space`.

    Returns:
        (batch, C, h * side, w * side).
    """
    batch, channels, *sizes = features.shape
    blocks = features.reshape(batch, side, side, channels // side**2, *sizes)
    down, across = (
        jnp.asarray(_smoothing_matrix(n * side).reshape(-1, n, side), features.dtype) for n in sizes
    )
    return jnp.einsum("bpqchw,xwq,yhp->bcyx", blocks, across, down, precision="highest")


def _smoothing_matrix(size: int) -> np.ndarray:
    """Returns the matrix that smooths a row of pixels, (size, size)."""
    index = np.arange(size)
    matrix = np.zeros((size, size))
    for i, weight in enumerate(KERNEL):
        np.add.at(matrix, (index, np.clip(index + i - len(KERNEL) // 2, 0, size - 1)), weight)
    return matrix
