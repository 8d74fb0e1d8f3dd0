"""Convolution with stride 2 of channels-first images, with which an encoder begins."""

import jax
import jax.numpy as jnp
from jax import lax

from jax_stn_icnn.ops.convolution import DIMENSIONS, convolve
from jax_stn_icnn.ops.platform import current_implementations


def convolve_halved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution with stride 2, padded with zeros as TensorFlow's SAME.

    Args:
        x: (batch, inputs, height, width), both sizes even.
        kernel: (3, 3, inputs, outputs).

    Returns:
        (batch, outputs, height / 2, width / 2), in the type of `x`.
    """
    if current_implementations().convolution == "xla":
        return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)
    side, _, inputs, outputs = kernel.shape
    height, width = x.shape[2:]
    padded = jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
    taps = [
        padded[:, :, i : i + height : 2, j : j + width : 2]
        for i in range(side)
        for j in range(side)
    ]
    matrix = kernel.reshape(1, 1, side**2 * inputs, outputs)
    return convolve(jnp.concatenate(taps, axis=1), matrix)
