"""Convolutions of stride 2 into and out of blocks of 2 x 2 pixels, with which an encoder begins.

On a TPU its first features, few channels at many pixels, are BlockFeatures in between.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_stn_icnn.ops import space_to_depth
from jax_stn_icnn.ops.space_to_depth import (
    DIMENSIONS,
    BlockFeatures,
    take_pixels,
    zero_padding,
)

BLOCK = (2, 2)


def convolve_halved_into_blocks(image: jax.Array, kernel: jax.Array) -> BlockFeatures:
    """Returns `ops.strided.convolve_halved` of an image, as blocks.

    Args:
        image: (batch, height, width, inputs), both sizes multiples of four.
        kernel: (3, 3, inputs, outputs); float32.

    Returns:
        Features of half the size, in the type of `image`.
    """
    height, width, inputs = image.shape[1:]
    # 2 x 2 pixels of the image are the channels of a pixel of the result, which it reads together
    # with the pixels below and to the right.
    row, column, channel, *of_result = np.indices((2, 2, inputs, *BLOCK))
    row, column = (2 * at + within for at, within in zip(of_result, (row, column), strict=True))
    blocks = take_pixels(image, (1, 1), channel, row, column, strides=(4, 4))
    pixels = BlockFeatures(blocks, (height // 2, width // 2), BLOCK)
    taps = _pairs(kernel).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * inputs, -1)
    taps = jnp.pad(taps, ((1, 0), (1, 0), (0, 0), (0, 0)))
    return zero_padding(space_to_depth.convolve(pixels, taps))


def convolve_depthwise_blocks(x: BlockFeatures, kernel: jax.Array) -> BlockFeatures:
    """Returns the depthwise convolution of stride 1.

    Args:
        x: The features.
        kernel: (k, k, channels), k odd; float32.
    """
    of_channel = jnp.eye(x.channels, dtype=kernel.dtype)
    return zero_padding(space_to_depth.convolve(x, kernel[..., None] * of_channel))


def convolve_depthwise_halved(x: BlockFeatures, kernel: jax.Array) -> jax.Array:
    """Returns the depthwise convolution of stride 2 of `ops.depthwise`, without blocks.

    Args:
        x: Features in blocks of 2 x 2 pixels that start at 0, both sizes even.
        kernel: (3, 3, channels).

    Returns:
        Channels first, (batch, channels, height / 2, width / 2).
    """
    of_channel = jnp.eye(x.channels, dtype=kernel.dtype)[:, None, None]
    taps = _pairs(kernel).transpose(0, 2, 4, 1, 3)[..., None] * of_channel
    out = lax.conv_general_dilated(
        x.blocks,
        taps.reshape(2, 2, -1, x.channels).astype(x.blocks.dtype),
        (1, 1),
        ((0, 1), (0, 1)),
        dimension_numbers=DIMENSIONS,
    )
    return out.transpose(0, 3, 1, 2)


def _pairs(kernel: jax.Array) -> jax.Array:
    """Returns a kernel (3, 3, ...) as (2, 2, 2, 2, ...), its taps in pairs along both axes."""
    padded = jnp.pad(kernel, ((0, 1), (0, 1), *[(0, 0)] * (kernel.ndim - 2)))
    return padded.reshape(2, 2, 2, 2, *kernel.shape[2:])
