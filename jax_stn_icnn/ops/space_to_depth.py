"""Space-to-depth: blocks of pixels as channels, the layout in which networks compute on a TPU.

A TPU multiplies matrices of 128 channels; with the 8 channels of an interlinked CNN's first row
most of it is idle. In blocks of 4 x 4 pixels those are 128 channels, and a kernel of 5 x 5 pixels
is one of 3 x 3 blocks. Operations on `BlockFeatures` return the same values as on images, up to
the order of sums. Pixels that pad the last blocks are zero and never contribute. Parameters are
the image's.

Two orders of channels: `space_to_depth` and `depth_to_space` order them by row within the block,
column within the block, channel; `BlockFeatures` by channel, row, column.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_stn_icnn.geometry import Size
from jax_stn_icnn.ops.platform import current_implementations

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("blocks",),
    meta_fields=("size", "block", "start"),
)
@dataclasses.dataclass(frozen=True)
class BlockFeatures:
    """Features of an image in blocks of pixels.

    Attributes:
        blocks: (batch, rows of blocks, columns of blocks, channels * pixels of a block), ordered by
            channel, row within the block, column within the block. Zero outside the image.
        size: (height, width) of the image.
        block: (height, width) of a block.
        start: Row and column of the image where the first block begins: 0 or negative.
    """

    blocks: jax.Array
    size: Size
    block: Size
    start: int = 0

    @property
    def channels(self) -> int:
        """Number of channels of the image."""
        return int(self.blocks.shape[3]) // (self.block[0] * self.block[1])

    def of(self, blocks: jax.Array) -> "BlockFeatures":
        """Returns features of the same size and block with other values."""
        return dataclasses.replace(self, blocks=blocks)


# Features of every pixel: a channels-first array or BlockFeatures. A network uses one of the two.
Features: TypeAlias = Any


def to_blocks(image: jax.Array, block: Size, start: int = 0) -> BlockFeatures:
    """Returns an image as blocks; its size need not be a multiple of the block's.

    Args:
        image: (batch, height, width, channels).
        block: (height, width) of a block.
        start: Row and column of the image where the first block begins: 0 or negative.

    Returns:
        The features in blocks, of the image's type.
    """
    size = image.shape[1:3]
    padding = [(-start, -(n - start) % side) for n, side in zip(size, block, strict=True)]
    channel, row, column = np.indices((image.shape[3], *block))
    blocks = take_pixels(image, (1, 1), channel, row, column, block, padding)
    return BlockFeatures(blocks, size, block, start)


def from_blocks(x: BlockFeatures) -> jax.Array:
    """Returns the image of blocks, (batch, height, width, channels)."""
    batch, rows, columns, _ = x.blocks.shape
    (height, width), (high, wide) = x.size, x.block
    blocks = x.blocks.reshape(batch, rows, columns, x.channels, high, wide)
    # A product with ones moves the columns: exact, and much faster on a TPU than a copy.
    ones = np.eye(columns * wide)[-x.start : width - x.start].reshape(width, columns, wide)
    pixels = jnp.einsum(
        "bhwcpq,xwq->bhcpx", blocks, jnp.asarray(ones, blocks.dtype), precision="highest"
    )
    pixels = pixels.transpose(0, 1, 3, 4, 2).reshape(batch, rows * high, width, x.channels)
    return pixels[:, -x.start : height - x.start]


def concatenate(features: list[BlockFeatures]) -> BlockFeatures:
    """Concatenates the channels of features of one size and block."""
    return features[0].of(jnp.concatenate([x.blocks for x in features], axis=3))


def repeat_channels(values: jax.Array, block: Size) -> jax.Array:
    """Returns a value per channel as a value per channel of blocks.

    Args:
        values: A value for each channel of the image, (channels,).
        block: (height, width) of a block.

    Returns:
        (channels * pixels of a block,), in the order of `BlockFeatures.blocks`.
    """
    return jnp.repeat(values, block[0] * block[1])


def zero_padding(x: BlockFeatures) -> BlockFeatures:
    """Sets the pixels that pad the blocks to zero."""
    inside: jax.Array | None = None
    for axis, side in enumerate(x.block):
        at = _pixels(x, axis)
        bounds = [at >= 0] if x.start else []
        bounds += [at < x.size[axis]] if (x.size[axis] - x.start) % side else []
        for bound in bounds:
            inside = bound if inside is None else inside & bound
    return x if inside is None else x.of(jnp.where(inside, x.blocks, 0))


def _pixels(x: BlockFeatures, axis: int) -> jax.Array:
    """Returns the position of the blocks' channels along an axis, broadcastable to the blocks."""
    first = jnp.arange(x.blocks.shape[1 + axis]) * x.block[axis] + x.start
    within = jnp.asarray(np.indices((x.channels, *x.block))[1 + axis].reshape(-1))
    return first[(..., *[None] * (2 - axis))] + within


def compute(make: Callable[[], jax.Array]) -> jax.Array:
    """Returns what a function returns."""
    return make()


def convolve(
    x: BlockFeatures,
    kernel: jax.Array,
    below: BlockFeatures | None = None,
    keep: Callable[[Callable[[], jax.Array]], jax.Array] = compute,
) -> BlockFeatures:
    """Returns the convolution with stride 1 and zero padding.

    If the kernel spans at most half a block, the result's blocks start half a kernel earlier than
    those of `x`, or later again, so that the block kernel is 2 x 2 instead of 3 x 3.

    Args:
        x: The features; with `below` they start at 0.
        kernel: (k, k, inputs, outputs), k odd; float32.
        below: Features of half the size, if any, which are upsampled by two (nearest) and
            concatenated to `x`. Their blocks are half as high and wide, or as high and wide.
        keep: Given the function that computes the block kernel, returns its result, or that of an
            earlier call with the same kernel and the same shapes.

    Returns:
        The features, in the type of `x`. Values that pad the blocks are undefined.
    """
    around = kernel.shape[0] // 2
    start = x.start
    if 0 < 2 * around <= min(x.block):
        start = -around if x.start == 0 else 0
    own, of_below = jnp.split(kernel, [x.channels], axis=2)
    first = start - x.start - around
    blocks, inner = [x.blocks], [x.block]
    if below is not None:
        assert x.start == below.start == 0
        below = _with_blocks_as(below, x)
        blocks.append(below.blocks)
        inner.append(below.block)

    def make() -> jax.Array:
        kernels = [
            _block_kernel(each, x.block, side, first)
            for each, side in zip((own, of_below), inner, strict=False)
        ]
        return jnp.concatenate(kernels, axis=2).astype(x.blocks.dtype)

    block_kernel, padding = keep(make), []
    for axis, side in enumerate(x.block):
        in_front, count = -(first // side), -(-(x.size[axis] - start) // side)
        seen = count + block_kernel.shape[axis] - 1
        padding.append((in_front, seen - in_front - x.blocks.shape[1 + axis]))
    out = lax.conv_general_dilated(
        jnp.concatenate(blocks, axis=3),
        block_kernel,
        (1, 1),
        padding,
        dimension_numbers=DIMENSIONS,
    )
    return BlockFeatures(out, x.size, x.block, start)


def _block_kernel(kernel: jax.Array, block: Size, inner: Size, first: int) -> jax.Array:
    """Returns a kernel of blocks, (n, m, inputs * pixels of inner, outputs * pixels of block).

    Input blocks have the pixels of `inner`, which stand for those of `block`. The first tap of a
    block's first pixel falls on pixel `first` of the input block at the same position.
    """
    if block == (1, 1):
        return kernel
    side, _, inputs, outputs = kernel.shape
    rows, columns = (_taps(side, *sides, first) for sides in zip(block, inner, strict=True))
    n, m = len(rows), len(columns)
    # Two products with ones whose last axis is never short, which would be slow on a TPU.
    ones = np.eye(outputs)
    of_columns = np.einsum("mPQT,oO->TomQOP", columns, ones)
    of_columns = of_columns.reshape(side, outputs, m, inner[1], -1)
    found = jnp.einsum(
        "tTio,TomQy->timQy", kernel, jnp.asarray(of_columns, kernel.dtype), precision="highest"
    )
    of_rows = np.einsum("npqt,oO,PZ->nqtoPOpZ", rows, ones, np.eye(block[1]))
    of_rows = of_rows.reshape(n, inner[0], side, outputs * block[1], -1)
    found = jnp.einsum(
        "timQy,nqtyz->nqimQz", found, jnp.asarray(of_rows, kernel.dtype), precision="highest"
    )
    return found.transpose(0, 3, 2, 1, 4, 5).reshape(n, m, inputs * inner[0] * inner[1], -1)


def _taps(length: int, side: int, inner: int, first: int) -> np.ndarray:
    """Returns one where a tap of a pixel of a block falls on a pixel of a nearby block.

    The shape is (blocks, side, inner, taps).
    """
    in_front = -(first // side)
    behind = (first + side + length - 2) // side
    found = np.zeros((in_front + behind + 1, side, inner, length))
    for pixel in range(side):
        for tap in range(length):
            block, within = divmod(first + pixel + tap, side)
            found[block + in_front, pixel, within * inner // side, tap] = 1
    return found


def _with_blocks_as(below: BlockFeatures, x: BlockFeatures) -> BlockFeatures:
    """Returns `below` in as many blocks as `x`, upsampled if the size of `x` is odd."""
    if below.block == x.block:
        below = _halve_blocks(below, x.blocks.shape[1:3])
    if below.block == x.block or not any(length % 2 for length in x.size):
        return below
    channel, row, column = np.indices((below.channels, *x.block))
    doubled = take_pixels(below.blocks, below.block, channel, row // 2, column // 2)
    return zero_padding(x.of(doubled))


def _halve_blocks(below: BlockFeatures, count: Size) -> BlockFeatures:
    """Returns `below` in blocks half as high and wide; blocks of one pixel are repeated."""
    if below.block == (1, 1):
        blocks, high, wide = jnp.repeat(jnp.repeat(below.blocks, 2, axis=1), 2, axis=2), 1, 1
    else:
        batch, rows, columns, _ = below.blocks.shape
        high, wide = below.block[0] // 2, below.block[1] // 2
        blocks = below.blocks.reshape(batch, rows, columns, below.channels, 2, high, 2, wide)
        blocks = blocks.transpose(0, 1, 4, 2, 6, 3, 5, 7)
        blocks = blocks.reshape(batch, 2 * rows, 2 * columns, -1)
    return BlockFeatures(blocks[:, : count[0], : count[1]], below.size, (high, wide))


def take_pixels(
    blocks: jax.Array,
    block: Size,
    channel: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    strides: Size = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
) -> jax.Array:
    """Returns selected pixels of a block or of the blocks after it, one for each output.

    Computed as a product with ones, which is exact and much faster on a TPU than a copy.

    Args:
        blocks: (batch, rows of blocks, columns of blocks, channels * pixels of a block), as in
            `BlockFeatures`.
        block: (height, width) of a block.
        channel: The pixel's channel for each output, integers of any shape.
        row: The pixel's row, from 0 at the top of the block; rows from the block's height on lie in
            the blocks below.
        column: The pixel's column; columns from the block's width on lie in the blocks further
            right.
        strides: Blocks from one position of the result to the next, (down, across).
        padding: Blocks of zeros around the input, ((above, below), (left, right)).

    Returns:
        (batch, rows, columns, outputs), of the type of `blocks`.
    """
    taps = row.max() // block[0] + 1, column.max() // block[1] + 1
    tap = row // block[0] * taps[1] + column // block[1]
    within = (channel * block[0] + row % block[0]) * block[1] + column % block[1]
    count = blocks.shape[3]
    chosen = jnp.asarray((tap * count + within).reshape(-1), jnp.int32)
    kernel = jax.nn.one_hot(chosen, taps[0] * taps[1] * count, axis=0, dtype=blocks.dtype)
    return lax.conv_general_dilated(
        blocks,
        kernel.reshape(*taps, count, -1),
        strides,
        padding,
        dimension_numbers=DIMENSIONS,
        precision=lax.Precision.HIGHEST,
    )


def max_pool(x: BlockFeatures, block: Size, offsets: tuple[int, ...] = (-1, 0, 1)) -> BlockFeatures:
    """Returns the max pool of stride 2; size n becomes ceil(n / 2).

    The gradient goes to the first of equal pixels, in reading order.

    Args:
        x: The features, which start at 0.
        block: (height, width) of the result's blocks: half those of `x`, or the same.
        offsets: Positions of the pooled pixels relative to pixel 2 i, along each axis; by default 3
            x 3 with a padding of one.

    Returns:
        The pooled features.
    """
    assert x.start == 0
    return zero_padding(_highest(_highest(x, block, offsets, axis=1), block, offsets, axis=0))


def _highest(x: BlockFeatures, block: Size, offsets: tuple[int, ...], axis: int) -> BlockFeatures:
    """Returns the maximum along an axis. Values that pad the blocks are undefined."""
    side, count = x.block[axis], x.blocks.shape[1 + axis]
    stride = 2 * block[axis] // side
    size, pooled = (-(-x.size[0] // 2), x.size[1]), (block[0], x.block[1])
    strides, padding = (stride, 1), [(1, -count % stride), (0, 0)]
    if axis == 1:
        size, pooled = (x.size[0], -(-x.size[1] // 2)), (x.block[0], block[1])
        strides, padding = strides[::-1], padding[::-1]
    # For each offset, counted from the block before, the first one that the convolution reads.
    at = np.indices((len(offsets), x.channels, *pooled))
    at[2 + axis] = side + 2 * at[2 + axis] + np.array(offsets)[at[0]]
    blocks = take_pixels(x.blocks, x.block, at[1], at[2], at[3], strides, padding)
    first, *others = (
        _within(BlockFeatures(each, size, pooled), x, offset, axis)
        for offset, each in zip(offsets, jnp.split(blocks, len(offsets), axis=3), strict=True)
    )
    for other in others:
        first = jnp.where(first >= other, first, other)
    return BlockFeatures(first, size, pooled)


def _within(found: BlockFeatures, x: BlockFeatures, offset: int, axis: int) -> jax.Array:
    """Returns the values found at an offset; -inf where the offset lies outside the image."""
    of_x = 2 * _pixels(found, axis) + offset
    if offset < 0:
        return jnp.where(of_x >= 0, found.blocks, -jnp.inf)
    if offset > 0 and x.size[axis] % 2:
        return jnp.where(of_x < x.size[axis], found.blocks, -jnp.inf)
    return found.blocks


def space_to_depth(image: jax.Array, side: int) -> jax.Array:
    """Returns an image with blocks of pixels as channels, channels first.

    Args:
        image: (batch, h * side, w * side, C).
        side: Side of a block in pixels.

    Returns:
        (batch, side**2 * C, h, w), channels ordered by row within the block, column within the
        block, channel.
    """
    batch, height, width, channels = image.shape
    if current_implementations().space_to_depth:
        # A convolution with ones: exact, and much faster on a TPU than a copy.
        row, column, channel = np.indices((side, side, channels))
        blocks = take_pixels(image, (1, 1), channel, row, column, strides=(side, side))
        return blocks.transpose(0, 3, 1, 2)
    blocks = image.reshape(batch, height // side, side, width // side, side, channels)
    return blocks.transpose(0, 2, 4, 5, 1, 3).reshape(
        batch, side**2 * channels, height // side, width // side
    )


def depth_to_space(features: jax.Array, side: int) -> jax.Array:
    """Returns an image whose blocks of pixels were channels, channels first.

    The inverse of `space_to_depth`, except that its result is channels-first too.

    Args:
        features: (batch, side**2 * C, h, w), channels ordered as by `space_to_depth`.
        side: Side of a block in pixels.

    Returns:
        (batch, C, h * side, w * side).
    """
    batch, channels, height, width = features.shape
    blocks = features.reshape(batch, side, side, channels // side**2, height, width)
    if current_implementations().space_to_depth:
        # A product with ones moves the columns, likewise.
        ones = jnp.eye(width * side, dtype=features.dtype).reshape(-1, width, side)
        pixels = jnp.einsum("bpqchw,xwq->bchpx", blocks, ones, precision="highest")
    else:
        pixels = blocks.transpose(0, 3, 4, 1, 5, 2)
    return pixels.reshape(batch, channels // side**2, height * side, width * side)
