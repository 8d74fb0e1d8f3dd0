"""Depthwise convolution of channels-first images: each channel with a kernel of its own.

Arrays are (batch, channels, height, width). Accelerators use XLA's grouped convolution, which on a
CPU takes ten to fifty times as long as the sum over the kernel's taps of the shifted image times
the tap.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jax_stn_icnn.ops.platform import current_implementations

DIMENSIONS = ("NCHW", "HWIO", "NCHW")


def same_padding(length: int, side: int, stride: int) -> tuple[int, int]:
    """Returns the zeros before and after an axis, as TensorFlow's SAME pads it.

    Args:
        length: Length of the axis.
        side: Number of taps along it.
        stride: Distance of the result's pixels along it.
    """
    zeros = max((-(-length // stride) - 1) * stride + side - length, 0)
    return zeros // 2, zeros - zeros // 2


@functools.partial(jax.jit, static_argnames="stride")
def convolve_depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Returns the depthwise convolution, padded with zeros as TensorFlow's SAME.

    Args:
        x: (batch, channels, height, width).
        kernel: (k, k, channels), k odd.
        stride: 1 or 2.

    Returns:
        (batch, channels, ceil(height / stride), ceil(width / stride)), in the type of `x`.
    """
    by_shifts = current_implementations().depthwise == "shifts"
    return (_by_shifts if by_shifts else _by_xla)(x, kernel, stride)


def _by_xla(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=DIMENSIONS,
        feature_group_count=x.shape[1],
    )


def _by_shifts(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    side, (height, width) = kernel.shape[0], x.shape[2:]
    padding = [same_padding(length, side, stride) for length in (height, width)]
    dtype = jnp.promote_types(x.dtype, jnp.float32)  # CPUs multiply bfloat16 slower than float32.
    padded = jnp.pad(x.astype(dtype), ((0, 0), (0, 0), *padding))
    rows, columns = ((-(-length // stride) - 1) * stride + 1 for length in (height, width))
    taps = kernel.astype(dtype)[..., None, None]
    shifted = [
        padded[:, :, i : i + rows : stride, j : j + columns : stride] * taps[i, j]
        for i in range(side)
        for j in range(side)
    ]
    total = functools.reduce(jnp.add, shifted)
    return total.astype(x.dtype)
