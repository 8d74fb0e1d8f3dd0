"""Pictures of features folded (space to depth): a block of pixels is one place of more channels.

A TPU multiplies matrices of 128 channels; with the 8 of an interlinked CNN's first row most of its
unit stands idle. Folded by four pixels a side, those are 128, and a kernel of 5 x 5 pixels is one
of 3 x 3 blocks. Everything here equals what it does to the picture itself, up to the order of sums:
pixels that fill up the last blocks are zero, and count nowhere. Parameters stay the picture's.
"""

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


# Features of every pixel: channels first, (batch, channels, height, width), or folded.
Picture = jax.Array | Folded


def fold(picture: jax.Array, block: Size, start: int = 0) -> Folded:
    """Folds (batch, height, width, channels), which needs not divide into blocks."""
    size = picture.shape[1:3]
    padding = tuple((-start, -(n - start) % side) for n, side in zip(size, block, strict=True))
    pixels = np.indices((picture.shape[3], *block))
    blocks = pick(picture, (1, 1), *pixels, strides=block, padding=padding)
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
    return pictures[0].replace(blocks=jnp.concatenate([x.blocks for x in pictures], axis=3))


def to_blocks(of_channels: jax.Array, block: Size) -> jax.Array:
    """What each channel has, for the channels of blocks."""
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
    return x if inside is None else x.replace(blocks=jnp.where(inside, x.blocks, 0))


def _pixels(x: Folded, axis: int) -> jax.Array:
    """Where the blocks' channels lie along an axis of the picture, to be broadcast to the blocks."""
    first = np.arange(x.blocks.shape[1 + axis]) * x.block[axis] + x.start
    within = np.indices((x.channels, *x.block))[1 + axis].reshape(-1)
    first, within = jnp.asarray(first, jnp.int32), jnp.asarray(within, jnp.int32)
    return (first[:, None, None] if axis == 0 else first[:, None]) + within


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
    return x.replace(blocks=out, start=start)


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
    """The row below with as many blocks as `x`; upsampled, where the last pixel counts only once."""
    if below.block == x.block:
        below = halve_blocks(below, x.blocks.shape[1:3])
    if not any(length % 2 for length in x.size):
        return below
    channel, row, column = np.indices((below.channels, *x.block))
    doubled = pick(below.blocks, below.block, channel, row // 2, column // 2)
    return blank(x.replace(blocks=doubled))


def halve_blocks(x: Folded, count: Size) -> Folded:
    """The same picture in blocks half as high and wide, or upsampled if blocks are single pixels."""
    half = tuple(max(1, side // 2) for side in x.block)
    batch, rows, columns, _ = x.blocks.shape
    if x.block == half:
        blocks = jnp.repeat(jnp.repeat(x.blocks, 2, axis=1), 2, axis=2)
    else:
        blocks = x.blocks.reshape(batch, rows, columns, x.channels, 2, half[0], 2, half[1])
        blocks = blocks.transpose(0, 1, 4, 2, 6, 3, 5, 7)
        blocks = blocks.reshape(batch, 2 * rows, 2 * columns, -1)
    return Folded(blocks[:, : count[0], : count[1]], x.size, half)


def pick(
    blocks: jax.Array,
    block: Size,
    channel: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    strides: Size = (1, 1),
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
) -> jax.Array:
    """For each output a pixel of a block or, where it lies beyond, of the blocks after it.

    As a product with ones, which is exact, and much faster on TPU than to move channels about.
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
    size, pooled, strides, padding = list(x.size), list(x.block), [1, 1], [(0, 0), (0, 0)]
    size[axis], pooled[axis] = -(-size[axis] // 2), block[axis]
    strides[axis] = 2 * block[axis] // side
    padding[axis] = 1, -count % strides[axis]
    channel, *at = np.indices((x.channels, *pooled))
    # Of a place, from the block in front of it on, which is the first that a convolution sees.
    seen = [[*at] for _ in offsets]
    for pixels, offset in zip(seen, offsets, strict=True):
        pixels[axis] = side + 2 * at[axis] + offset
    rows, columns = (np.stack([pixels[i] for pixels in seen]) for i in (0, 1))
    channels = np.stack([channel] * len(offsets))
    blocks = pick(x.blocks, x.block, channels, rows, columns, tuple(strides), tuple(padding))
    found = Folded(blocks, tuple(size), tuple(pooled))
    highest: jax.Array | None = None
    for offset, each in zip(offsets, jnp.split(blocks, len(offsets), axis=3), strict=True):
        found = found.replace(blocks=each)
        where = 2 * _pixels(found, axis) + offset
        if offset < 0:
            each = jnp.where(where >= 0, each, -jnp.inf)
        if offset > 0 and x.size[axis] % 2:
            each = jnp.where(where < x.size[axis], each, -jnp.inf)
        highest = each if highest is None else jnp.where(highest >= each, highest, each)
    return found.replace(blocks=highest)
