"""Convolution of channels-first images: square odd kernel, stride 1, zero padding, same size.

Arrays are (batch, channels, height, width). Accelerators use XLA's convolution. On a CPU that is
slow for few channels, above all its gradient with respect to the kernel, so there each image is one
matrix product. The k x k neighbours of a pixel are split between its two sides: the columns stack k
shifts along x, (k * inputs) of them; the product with all k rows of the kernel at once has
(k * outputs) rows; their k shifts along y add up to the convolution. Images go through it one at a
time, or a few small ones at once, so that all of it fits the cache.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_stn_icnn.geometry import Size
from jax_stn_icnn.ops.platform import current_implementations

DIMENSIONS = ("NCHW", "HWIO", "NCHW")
# Most numbers in the columns of one product of several images: one megabyte.
MAX_COLUMNS = 2**18


@functools.partial(jax.jit, static_argnames="size")
def convolve_upsampled(x: jax.Array, kernel: jax.Array, size: Size) -> jax.Array:
    """Returns the convolution of an image upsampled by two (nearest), without upsampling it.

    Several of the k taps along an axis fall on the same small pixel; which ones depends on whether
    the output position is even or odd. Each of the four combinations of parities therefore has a
    smaller kernel, the sums of those taps, and all four are channels of one convolution.

    Args:
        x: (batch, inputs, ceil(rows / 2), ceil(columns / 2)).
        kernel: (k, k, inputs, outputs), k odd.
        size: (rows, columns) of the result; of an odd size the last pixels are not repeated.

    Returns:
        (batch, outputs, rows, columns), in the type of `x`.
    """
    batch, inputs, height, width = x.shape
    outputs = kernel.shape[3]
    small = _parity_kernels(kernel).astype(x.dtype)
    four = convolve(x, small).reshape(batch, 2, 2, outputs, height, width)
    out = four.transpose(0, 3, 4, 1, 5, 2).reshape(batch, outputs, 2 * height, 2 * width)
    return out[:, :, : size[0], : size[1]] - _beyond_odd_edges(x, kernel.astype(x.dtype), size)


def _beyond_odd_edges(x: jax.Array, kernel: jax.Array, size: Size) -> jax.Array | float:
    """Returns what the row and the column cut off by an odd size contribute to the rest."""
    rows, columns = size
    around = kernel.shape[0] // 2
    beyond: jax.Array | float = 0.0
    if around and rows % 2:
        row = _line_contribution(jnp.repeat(x[:, :, -1], 2, axis=2), kernel, columns)[:, :, -rows:]
        beyond += jnp.pad(row, ((0, 0), (0, 0), (rows - row.shape[2], 0), (0, 0)))
    if around and columns % 2:
        # Without the corner, which the row includes if both sizes are odd.
        line = jnp.repeat(x[..., -1], 2, axis=2)[:, :, :rows]
        column = _line_contribution(line, kernel.swapaxes(0, 1), rows)[:, :, -columns:]
        column = column.swapaxes(2, 3)
        beyond += jnp.pad(column, ((0, 0), (0, 0), (0, 0), (columns - column.shape[3], 0)))
    return beyond


def _line_contribution(line: jax.Array, kernel: jax.Array, length: int) -> jax.Array:
    """Returns what a row of pixels contributes to the rows before it.

    Args:
        line: (batch, inputs, pixels).
        kernel: (k, k, inputs, outputs).
        length: Length of the rows.

    Returns:
        (batch, outputs, k // 2, length); the row next to the line is the last.
    """
    side, _, inputs, outputs = kernel.shape
    around = side // 2
    padded = jnp.pad(line, ((0, 0), (0, 0), (around, around)))
    shifts = jnp.stack([padded[:, :, i : i + length] for i in range(side)], axis=1)
    matrix = kernel[:around:-1].transpose(3, 0, 1, 2).reshape(outputs * around, side * inputs)
    out = jnp.einsum("mk,bkn->bmn", matrix, shifts.reshape(-1, side * inputs, length))
    return out.reshape(-1, outputs, around, length)


def _parity_kernels(kernel: jax.Array) -> jax.Array:
    """Returns the kernels of the four parities, even row and even column first, concatenated.

    One product that preserves the layout of inputs and outputs: two, one for each axis, take a
    twelfth of the time of parsing one face on a CPU.

    Args:
        kernel: (k, k, inputs, outputs).

    Returns:
        (small side, small side, inputs, 4 * outputs).
    """
    side, _, inputs, outputs = kernel.shape
    falls_on = _taps_to_pixels(side)
    small_side = falls_on.shape[1]
    both = np.einsum("psk,qtl->stpqkl", falls_on, falls_on).reshape(-1, side**2)
    taps = kernel.reshape(side**2, inputs * outputs)
    small = jnp.matmul(jnp.asarray(both, kernel.dtype), taps, precision=lax.Precision.HIGHEST)
    small = small.reshape(small_side, small_side, 4, inputs, outputs).swapaxes(2, 3)
    return small.reshape(small_side, small_side, inputs, 4 * outputs)


def _taps_to_pixels(side: int) -> np.ndarray:
    """Returns one where, for a parity, a tap falls on a small pixel, (2, small side, side)."""
    around = side // 2
    reach = (around + 1) // 2
    found = np.zeros((2, 2 * reach + 1, side))
    for parity in (0, 1):
        for tap in range(side):
            found[parity, (parity + tap - around) // 2 + reach, tap] = 1
    return found


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution with stride 1 and zero padding.

    Args:
        x: (batch, inputs, height, width).
        kernel: (k, k, inputs, outputs), k odd.

    Returns:
        (batch, outputs, height, width), in the type of `x`. It can be differentiated once, in
        reverse mode.
    """
    by_matmul = current_implementations().convolution == "matmul"
    return (_convolve_by_matmul if by_matmul else _convolve_by_xla)(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve(x, kernel), (x, kernel)


def _backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    by_matmul = current_implementations().convolution == "matmul"
    return (_gradients_by_matmul if by_matmul else _gradients_by_xla)(*saved, gradient)


convolve.defvjp(_forward, _backward)


def _convolve_by_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=DIMENSIONS)


def _gradients_by_xla(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(_convolve_by_xla, x, kernel)[1](gradient)


@jax.jit  # Calls of equal shapes share one function of the program.
def _convolve_by_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    side, size = kernel.shape[0], x.shape[2:]
    matrix = _matrix(kernel)

    def convolve_group(_: None, images: jax.Array) -> tuple[None, jax.Array]:
        products = _product(matrix, _columns(images, side))
        return None, _add_rows(products, side, _count(images), size).astype(x.dtype)

    # Two at a time run in parallel on the cores; the two sides of one face then need no loop.
    unroll = 2 if _is_number(x.shape[0]) else 1
    _, out = lax.scan(convolve_group, None, _groups(x, side * x.shape[1]), unroll=unroll)
    return out.reshape(x.shape[0], -1, *size)


@jax.jit
def _gradients_by_matmul(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    side, _, inputs, outputs = kernel.shape
    size = x.shape[2:]
    # The gradient of the image is the convolution with the flipped kernel.
    matrix = _matrix(kernel[::-1, ::-1].swapaxes(2, 3))

    def add_group(
        total: jax.Array, group: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        images, of_outputs = group
        # The gradient's columns serve the kernel's gradient too.
        columns = _columns(of_outputs, side)
        of_images = _add_rows(_product(matrix, columns), side, _count(images), size)
        total += lax.dot_general(_rows(images, side), columns, (((1,), (1,)), ((), ())))
        return total, of_images.astype(x.dtype)

    zero = jnp.zeros((side * inputs, side * outputs), matrix.dtype)
    height = side * max(inputs, outputs)
    groups = _groups(x, height), _groups(gradient, height)
    total, of_images = lax.scan(add_group, zero, groups)
    # Columns are indexed by the shift of the gradient, the kernel by that of the image.
    of_kernel = total.reshape(side, inputs, side, outputs)[:, :, ::-1].transpose(0, 2, 1, 3)
    return of_images.reshape(x.shape), of_kernel.astype(kernel.dtype)


def _groups(images: jax.Array, height: int) -> jax.Array:
    """Returns the images grouped by product, (groups, images of a group, ...).

    A group of one image has no axis of its own: XLA copies images to move an axis of length 1.

    Args:
        images: (batch, channels, height, width).
        height: Height of the columns.
    """
    batch, _, rows, columns = images.shape
    most = max(MAX_COLUMNS // (height * rows * columns), 1)
    count = max(i for i in range(1, most + 1) if batch % i == 0) if _is_number(batch) else 1
    return images if count == 1 else images.reshape(batch // count, count, *images.shape[1:])


def _count(images: jax.Array) -> int:
    """Returns the number of images in a group of `_groups`."""
    return 1 if images.ndim == 3 else images.shape[0]


def _is_number(batch: int) -> bool:
    """Returns whether the batch size is a number; in an exported program it is a symbol."""
    return isinstance(batch, int)


def _matrix(kernel: jax.Array) -> jax.Array:
    """Returns the kernel as (k columns * inputs, k rows * outputs); outputs stay last."""
    side, _, inputs, outputs = kernel.shape
    return _as_float32(kernel).transpose(1, 2, 0, 3).reshape(side * inputs, side * outputs)


def _product(matrix: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.einsum("km,kn->mn", matrix, columns)


def _columns(images: jax.Array, side: int) -> jax.Array:
    """Returns every pixel's neighbours in its row, with zeros above and below the images.

    Block j of (side * channels) holds the pixel j - side // 2 columns further.
    """
    around, width = side // 2, images.shape[-1]
    padded = _pad(images, around, around)
    return _stack([padded[..., j : j + width] for j in range(side)])


def _rows(images: jax.Array, side: int) -> jax.Array:
    """Returns every pixel's neighbours in its column, in the layout of `_columns`.

    Block i of (side * channels) holds the pixel i - side + 1 rows further than `_columns`.
    """
    border = side - 1
    padded = _pad(images, border, 0)
    height = images.shape[-2] + border
    return _stack([padded[:, :, i : i + height] for i in range(side)])


def _pad(images: jax.Array, rows: int, columns: int) -> jax.Array:
    """Returns the images of a group padded with zeros, their channels first."""
    pixels = _as_float32(images)
    pixels = pixels[:, None] if images.ndim == 3 else pixels.swapaxes(0, 1)
    return jnp.pad(pixels, ((0, 0), (0, 0), (rows, rows), (columns, columns)))


def _stack(shifts: list[jax.Array]) -> jax.Array:
    """Returns a row for every channel of every shift."""
    return jnp.stack(shifts).reshape(len(shifts) * shifts[0].shape[0], -1)


def _add_rows(products: jax.Array, side: int, count: int, size: Size) -> jax.Array:
    """Returns the sum over the kernel's rows for each pixel of a group of images."""
    height, width = size
    rows = products.reshape(side, -1, count, (height + side - 1) * width)
    shifted = [rows[i, :, :, i * width : (i + height) * width] for i in range(side)]
    total = sum(shifted[1:], shifted[0])
    total = total[:, 0] if count == 1 else total.swapaxes(0, 1)
    return total.reshape(*total.shape[:-1], height, width)


def _as_float32(x: jax.Array) -> jax.Array:
    # CPUs multiply bfloat16 slower than float32; float64 is not changed.
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
