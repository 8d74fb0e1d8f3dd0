"""Pictures of features folded (space to depth): a block of pixels is one place of more channels.

A TPU multiplies matrices of 128 channels; with the 8 of an interlinked CNN's first row most of its
unit stands idle. Folded by four pixels a side, those are 128, and a kernel of 5 x 5 pixels is one
of 3 x 3 blocks. Everything here equals what it does to the picture itself, up to the order of sums:
pixels that fill up the last blocks are zero, and count nowhere. Parameters stay the picture's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from jax_stn_icnn.geometry import Size

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def folds(platform: str | None) -> bool:
    """Whether networks fold their pictures on a platform; None is JAX's default one."""
    return (platform or jax.default_backend()) == "tpu"


@struct.dataclass
class Folded:
    """A picture of features, folded.

    Attributes:
        blocks: (batch, rows of blocks, columns of blocks, channels * pixels of a block), ordered by
            channel, row within the block, column within the block. Zero beyond the picture.
        size: (height, width) of the picture.
        block: (height, width) of a block.
        start: the row and the column of the picture where the first block begins: 0, or less.
    """

    blocks: jax.Array
    size: Size = struct.field(pytree_node=False)
    block: Size = struct.field(pytree_node=False)
    start: int = struct.field(pytree_node=False, default=0)

    @property
    def channels(self) -> int:
        """How many the picture has."""
        return int(self.blocks.shape[3]) // (self.block[0] * self.block[1])

    def of(self, blocks: jax.Array) -> "Folded":
        """Another picture of the same size, folded alike."""
        return dataclasses.replace(self, blocks=blocks)


# Features of every pixel: an array, channels first, or Folded. A network's are all of one kind.
Picture: TypeAlias = Any


def fold(picture: jax.Array, block: Size, start: int = 0) -> Folded:
    """Folds a picture, which needs not divide into blocks.

    Args:
        picture: (batch, height, width, channels).
        block: (height, width) of a block.
        start: the row and the column of the picture where the first block begins: 0, or less.

    Returns:
        The picture folded, of its type.
    """
    size = picture.shape[1:3]
    padding = [(-start, -(n - start) % side) for n, side in zip(size, block, strict=True)]
    channel, row, column = np.indices((picture.shape[3], *block))
    blocks = pick(picture, (1, 1), channel, row, column, block, padding)
    return Folded(blocks, size, block, start)


def unfold(x: Folded) -> jax.Array:
    """The picture, (batch, height, width, channels)."""
    batch, rows, columns, _ = x.blocks.shape
    (height, width), (high, wide) = x.size, x.block
    blocks = x.blocks.reshape(batch, rows, columns, x.channels, high, wide)
    # A product with ones puts columns in their place: exact, and much faster on TPU than a copy.
    ones = np.eye(columns * wide)[-x.start : width - x.start].reshape(width, columns, wide)
    pixels = jnp.einsum(
        "bhwcpq,xwq->bhcpx", blocks, jnp.asarray(ones, blocks.dtype), precision="highest"
    )
    pixels = pixels.transpose(0, 1, 3, 4, 2).reshape(batch, rows * high, width, x.channels)
    return pixels[:, -x.start : height - x.start]


def stack(pictures: list[Folded]) -> Folded:
    """Pictures of one size and block, their channels one after the other."""
    return pictures[0].of(jnp.concatenate([x.blocks for x in pictures], axis=3))


def to_blocks(of_channels: jax.Array, block: Size) -> jax.Array:
    """What each channel has, for the channels of blocks.

    Args:
        of_channels: a number for each channel, (channels,).
        block: (height, width) of a block.

    Returns:
        (channels * pixels of a block,), in the order of `Folded.blocks`.
    """
    return jnp.repeat(of_channels, block[0] * block[1])


def blank(x: Folded) -> Folded:
    """Makes zero what is beyond the picture."""
    inside: jax.Array | None = None
    for axis, side in enumerate(x.block):
        at = _pixels(x, axis)
        bounds = [at >= 0] if x.start else []
        bounds += [at < x.size[axis]] if (x.size[axis] - x.start) % side else []
        for bound in bounds:
            inside = bound if inside is None else inside & bound
    return x if inside is None else x.of(jnp.where(inside, x.blocks, 0))


def _pixels(x: Folded, axis: int) -> jax.Array:
    """Where the blocks' channels lie along an axis, in a shape that broadcasts to the blocks."""
    first = jnp.arange(x.blocks.shape[1 + axis]) * x.block[axis] + x.start
    within = jnp.asarray(np.indices((x.channels, *x.block))[1 + axis].reshape(-1))
    return first[(..., *[None] * (2 - axis))] + within


def convolve(x: Folded, kernel: jax.Array, below: Folded | None = None) -> Folded:
    """Convolves with stride 1 and zeroes around the picture.

    Where a kernel reaches half a block far at most, the blocks of the result begin earlier than
    those of `x`, or later again: so it spans two by two blocks, not three by three.

    Args:
        x: the picture. With a row below it starts at 0.
        kernel: (k, k, inputs, outputs), k odd; float32.
        below: a picture of half the size, if any. It counts as upsampled, every pixel twice, and
            stacked under `x`. Its blocks are half as high and wide, or as high and wide.

    Returns:
        The picture of outputs, in the type of `x`. Beyond it there is anything but zero.
    """
    around = kernel.shape[0] // 2
    start = x.start
    if 0 < 2 * around <= min(x.block):
        start = -around if x.start == 0 else 0
    own, of_below = jnp.split(kernel, [x.channels], axis=2)
    first = start - x.start - around
    blocks, kernels = [x.blocks], [_block_kernel(own, x.block, x.block, first)]
    if below is not None:
        assert x.start == below.start == 0
        below = _with_blocks_as(below, x)
        blocks.append(below.blocks)
        kernels.append(_block_kernel(of_below, x.block, below.block, first))
    padding = []
    for axis, side in enumerate(x.block):
        in_front, count = -(first // side), -(-(x.size[axis] - start) // side)
        seen = count + kernels[0].shape[axis] - 1
        padding.append((in_front, seen - in_front - x.blocks.shape[1 + axis]))
    out = lax.conv_general_dilated(
        jnp.concatenate(blocks, axis=3),
        jnp.concatenate(kernels, axis=2).astype(x.blocks.dtype),
        (1, 1),
        padding,
        dimension_numbers=DIMENSIONS,
    )
    return Folded(out, x.size, x.block, start)


def _block_kernel(kernel: jax.Array, block: Size, inner: Size, first: int) -> jax.Array:
    """A kernel of blocks: (n, m, inputs * pixels of inner, outputs * pixels of block).

    The blocks that come in have the pixels of `inner`, which count as those of `block`. The first
    tap of a block's first pixel falls on pixel `first` of the block at the same place.
    """
    if block == (1, 1):
        return kernel
    side, _, inputs, outputs = kernel.shape
    rows, columns = (_taps(side, *sides, first) for sides in zip(block, inner, strict=True))
    n, m = len(rows), len(columns)
    # Two products with ones, and never an axis of a few numbers the last: those are slow on TPU.
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
    """One where, for a pixel of a block, a tap falls on a pixel of a block near it.

    Shape (blocks, side, inner, taps).
    """
    in_front = -(first // side)
    behind = (first + side + length - 2) // side
    found = np.zeros((in_front + behind + 1, side, inner, length))
    for pixel in range(side):
        for tap in range(length):
            block, within = divmod(first + pixel + tap, side)
            found[block + in_front, pixel, within * inner // side, tap] = 1
    return found


def _with_blocks_as(below: Folded, x: Folded) -> Folded:
    """The row below with as many blocks as `x`, upsampled where its last pixel counts only once."""
    if below.block == x.block:
        below = _halve_blocks(below, x.blocks.shape[1:3])
    if below.block == x.block or not any(length % 2 for length in x.size):
        return below
    channel, row, column = np.indices((below.channels, *x.block))
    doubled = pick(below.blocks, below.block, channel, row // 2, column // 2)
    return blank(x.of(doubled))


def _halve_blocks(below: Folded, count: Size) -> Folded:
    """The row below in this many blocks, half as high and wide; single pixels count twice."""
    if below.block == (1, 1):
        blocks, high, wide = jnp.repeat(jnp.repeat(below.blocks, 2, axis=1), 2, axis=2), 1, 1
    else:
        batch, rows, columns, _ = below.blocks.shape
        high, wide = below.block[0] // 2, below.block[1] // 2
        blocks = below.blocks.reshape(batch, rows, columns, below.channels, 2, high, 2, wide)
        blocks = blocks.transpose(0, 1, 4, 2, 6, 3, 5, 7)
        blocks = blocks.reshape(batch, 2 * rows, 2 * columns, -1)
    return Folded(blocks[:, : count[0], : count[1]], below.size, (high, wide))


def pick(
    blocks: jax.Array,
    block: Size,
    channel: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    strides: Size = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
) -> jax.Array:
    """For each output a pixel of a block or, where it lies beyond, of the blocks after it.

    As a product with ones, which is exact, and much faster on TPU than to move channels about.

    Args:
        blocks: (batch, rows of blocks, columns of blocks, channels * pixels of a block), as in
            `Folded`.
        block: (height, width) of a block.
        channel: for each output the pixel's channel, integers of any shape.
        row: likewise its row, from 0 at the top of the block; from the height of a block on it lies
            in those below.
        column: likewise its column; from the width of a block on it lies in those to the right.
        strides: blocks from one place of the result to the next, (down, across).
        padding: blocks of zeroes put around those given, ((above, below), (left, right)).

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


def max_pool(x: Folded, block: Size, offsets: tuple[int, ...] = (-1, 0, 1)) -> Folded:
    """Max pool of stride 2: 3 x 3, padded by one, or another; size n becomes ceil(n / 2).

    The gradient goes to the first of equal pixels, in reading order.

    Args:
        x: the picture; it starts at 0.
        block: of the result: half as high and wide as those of `x`, or as high and wide.
        offsets: of the pixels that pixel i sees, from 2 i, along each axis.

    Returns:
        The picture pooled.
    """
    assert x.start == 0
    return blank(_highest(_highest(x, block, offsets, axis=1), block, offsets, axis=0))


def _highest(x: Folded, block: Size, offsets: tuple[int, ...], axis: int) -> Folded:
    """The highest pixels along an axis. Beyond the picture there is anything but zero."""
    side, count = x.block[axis], x.blocks.shape[1 + axis]
    stride = 2 * block[axis] // side
    size, pooled = (-(-x.size[0] // 2), x.size[1]), (block[0], x.block[1])
    strides, padding = (stride, 1), [(1, -count % stride), (0, 0)]
    if axis == 1:
        size, pooled = (x.size[0], -(-x.size[1] // 2)), (x.block[0], block[1])
        strides, padding = strides[::-1], padding[::-1]
    # For each offset; from the block in front on, which is the first that the convolution sees.
    at = np.indices((len(offsets), x.channels, *pooled))
    at[2 + axis] = side + 2 * at[2 + axis] + np.array(offsets)[at[0]]
    blocks = pick(x.blocks, x.block, at[1], at[2], at[3], strides, padding)
    first, *others = (
        _within(Folded(each, size, pooled), x, offset, axis)
        for offset, each in zip(offsets, jnp.split(blocks, len(offsets), axis=3), strict=True)
    )
    for other in others:
        first = jnp.where(first >= other, first, other)
    return Folded(first, size, pooled)


def _within(found: Folded, x: Folded, offset: int, axis: int) -> jax.Array:
    """What pixels of `x` that far from twice their place gave; the lowest where there are none."""
    of_x = 2 * _pixels(found, axis) + offset
    if offset < 0:
        return jnp.where(of_x >= 0, found.blocks, -jnp.inf)
    if offset > 0 and x.size[axis] % 2:
        return jnp.where(of_x < x.size[axis], found.blocks, -jnp.inf)
    return found.blocks
