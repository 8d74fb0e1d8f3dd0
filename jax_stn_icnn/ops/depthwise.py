"""Depthwise convolution of channels-first images: each channel with a kernel of its own.

Arrays are (batch, channels, height, width). GPUs use XLA's grouped convolution, which on a CPU
takes ten to fifty times as long as the sum over the kernel's taps of the shifted image times the
tap. A TPU fuses that sum with the convolution that follows.
"""

import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
from jax import lax

from jax_stn_icnn.geometry import Size
from jax_stn_icnn.ops.platform import current_implementations

DIMENSIONS = ("NCHW", "HWIO", "NCHW")
# Most parts of an image that the kernel's gradient adds up at once; more take longer to compile.
MOST_PARTS = 16


def same_padding(length: int, side: int, stride: int) -> tuple[int, int]:
    """Returns the zeros before and after an axis, as TensorFlow's SAME pads it.

    Args:
        length: Length of the axis.
        side: Number of taps along it.
        stride: Distance of the result's pixels along it.
    """
    zeros = max((-(-length // stride) - 1) * stride + side - length, 0)
    return zeros // 2, zeros - zeros // 2


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Returns the depthwise convolution, padded with zeros as TensorFlow's SAME.

    Args:
        x: (batch, channels, height, width).
        kernel: (k, k, channels), k odd.
        stride: 1 or 2.

    Returns:
        (batch, channels, ceil(height / stride), ceil(width / stride)), in the type of `x`. It can
        be differentiated once, in reverse mode.
    """
    by_shifts = current_implementations().depthwise == "shifts"
    return (_by_shifts if by_shifts else _by_xla)(x, kernel, stride)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve_depthwise(x, kernel, stride), (x, kernel)


def _backward(
    stride: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    implementations = current_implementations()
    # The gradients below are for CPUs, one image at a time.
    if implementations.depthwise == "shifts" and not implementations.space_to_depth:
        of_image = _image_gradient(gradient, kernel, tuple(x.shape[2:]), stride)
        return of_image, _kernel_gradient(x, gradient, kernel, stride)
    return jax.vjp(lambda x, kernel: _by_xla(x, kernel, stride), x, kernel)[1](gradient)


convolve_depthwise.defvjp(_forward, _backward)


def _by_xla(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=DIMENSIONS,
        feature_group_count=x.shape[1],
    )


@functools.partial(jax.jit, static_argnums=2)  # Calls of equal shapes share one function.
def _by_shifts(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    taps = _as_float32(kernel)[..., None, None]
    shifted = _shifts(x, kernel.shape[0], stride)
    return _total(taps[i, j] * pixels for i, j, pixels in shifted).astype(x.dtype)


def _shifts(x: jax.Array, side: int, stride: int) -> Iterator[tuple[int, int, jax.Array]]:
    """Yields each tap's row and column, and the pixels that it is multiplied by."""
    sizes = x.shape[-2:]
    padding = [same_padding(length, side, stride) for length in sizes]
    # A CPU converts each number once; a TPU would copy the image in float32.
    image = x if current_implementations().space_to_depth else _as_float32(x)
    padded = jnp.pad(image, [(0, 0)] * (x.ndim - 2) + padding)
    rows, columns = ((-(-length // stride) - 1) * stride + 1 for length in sizes)
    for i in range(side):
        for j in range(side):
            shifted = padded[..., i : i + rows : stride, j : j + columns : stride]
            yield i, j, _as_float32(shifted)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _image_gradient(gradient: jax.Array, kernel: jax.Array, size: Size, stride: int) -> jax.Array:
    """Returns the gradient with respect to the image, of this size."""
    if stride == 1:
        return _by_shifts(gradient, kernel[::-1, ::-1], 1)
    # The pixels of each parity of row and column receive every other tap.
    side, (height, width) = kernel.shape[0], gradient.shape[2:]
    border = side // 2 + 1
    taps = _as_float32(kernel)[..., None, None]
    padded = jnp.pad(_as_float32(gradient), [(0, 0)] * 2 + [(border, border)] * 2)
    (above, _), (before, _) = (same_padding(length, side, stride) for length in size)

    def pixels(row: int, column: int) -> jax.Array:
        return _total(
            taps[i, j] * padded[:, :, y : y + height, x : x + width]
            for i, y in _offsets(side, row + above, border)
            for j, x in _offsets(side, column + before, border)
        )

    rows = [jnp.stack([pixels(row, column) for column in (0, 1)], axis=-1) for row in (0, 1)]
    both = jnp.stack(rows, axis=3).reshape(*gradient.shape[:2], 2 * height, 2 * width)
    return both[:, :, : size[0], : size[1]].astype(gradient.dtype)


def _offsets(side: int, position: int, border: int) -> list[tuple[int, int]]:
    """Returns the taps whose distance to a position is even, and where their gradients begin."""
    taps = [i for i in range(side) if (position - i) % 2 == 0]
    return [(i, (position - i) // 2 + border) for i in taps]


@functools.partial(jax.jit, static_argnums=3)
def _kernel_gradient(
    x: jax.Array, gradient: jax.Array, kernel: jax.Array, stride: int
) -> jax.Array:
    """Returns the gradient with respect to the kernel, in the type of `kernel`.

    XLA adds up the pixels of a channel one after the other. Therefore the equal parts that an image
    is divided into, and the images, are added up first, several pixels in one instruction.
    """
    side, _, channels = kernel.shape
    height, width = gradient.shape[2:]
    parts = max(n for n in range(1, MOST_PARTS + 1) if height % n == 0)
    rows = height // parts

    def add_image(total: jax.Array, image: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        pixels, of_pixels = image
        of_parts = jnp.split(_as_float32(of_pixels), parts, axis=1)
        products = [
            _total(map(jnp.multiply, jnp.split(shifted, parts, axis=1), of_parts))
            for _, _, shifted in _shifts(pixels, side, stride)
        ]
        return total + jnp.stack(products), None

    dtype = jnp.promote_types(x.dtype, jnp.float32)
    zero = jnp.zeros((side**2, channels, rows, width), dtype)
    total, _ = lax.scan(add_image, zero, (x, gradient))
    return jnp.sum(total, axis=(2, 3)).reshape(kernel.shape).astype(kernel.dtype)


def _total(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, terms)


def _as_float32(x: jax.Array) -> jax.Array:
    # CPUs multiply bfloat16 slower than float32; float64 is not changed.
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
