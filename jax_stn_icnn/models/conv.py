"""The convolution of all networks: square odd kernel, stride 1, the picture keeps its size.

XLA's own is fast on accelerators. On CPU it is slow for so few channels, the gradient of the kernel
most of all, so there each image becomes matrix products. Both sides share the work of spreading the
k x k neighbours: the image's columns are k pixels side by side, (k * inputs) wide, and the product
with all k rows of the kernel at once is (k * outputs) wide; adding up its k row shifts is the
convolution. One image at a time, because that fits the cache, which is where the speed comes from
(docs/performance.md has the figures).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv(
    features: int, kernel_size: int, dtype: jnp.dtype, name: str, use_bias: bool = True
) -> nn.Conv:
    """Makes a convolution; for use within a compact module.

    Args:
        features: output channels.
        kernel_size: side of the square kernel, odd.
        dtype: type of the computation; parameters stay float32.
        name: the module's name.
        use_bias: whether it adds a bias.

    Returns:
        The module; it maps (batch, height, width, channels) to (batch, height, width, features).
    """
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        use_bias=use_bias,
        dtype=dtype,
        conv_general_dilated=_for_flax,
        name=name,
    )


def _for_flax(x: jax.Array, kernel: jax.Array, *_args: Any, **_options: Any) -> jax.Array:
    # Flax hands over strides, padding and the like; `conv` leaves them at what is done here.
    return convolve(x, kernel)


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves with stride 1 and zeroes around the picture.

    Args:
        x: shape (batch, height, width, inputs).
        kernel: shape (k, k, inputs, outputs), k odd.

    Returns:
        Shape (batch, height, width, outputs), in the type of `x`. It can be differentiated in
        reverse, once.
    """
    return lax.platform_dependent(x, kernel, cpu=_by_products, default=_by_xla)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve(x, kernel), (x, kernel)


def _backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return lax.platform_dependent(
        *saved, gradient, cpu=_gradients_by_products, default=_gradients_by_xla
    )


convolve.defvjp(_forward, _backward)


def _by_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=DIMENSIONS)


def _gradients_by_xla(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(_by_xla, x, kernel)[1](gradient)


def _by_products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    side, _, inputs, outputs = kernel.shape
    height = x.shape[1]
    matrix = _as_float32(kernel).transpose(1, 2, 0, 3).reshape(side * inputs, side * outputs)

    def of_image(image: jax.Array) -> jax.Array:
        rows = jnp.pad(_as_float32(image), ((side // 2, side // 2), (0, 0), (0, 0)))
        products = jnp.dot(_columns(rows, side), matrix)
        shifted = [
            products[i : i + height, :, i * outputs : (i + 1) * outputs] for i in range(side)
        ]
        return sum(shifted[1:], shifted[0])

    return lax.map(of_image, x).astype(x.dtype)


def _gradients_by_products(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    side, _, inputs, outputs = kernel.shape

    def add_image(
        total: jax.Array, image_and_gradient: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        image, of_output = map(_as_float32, image_and_gradient)
        columns = _columns(image, side).reshape(-1, side * inputs)
        rows = _rows(of_output, side).reshape(-1, side * outputs)
        return total + jnp.dot(columns.T, rows), None

    zero = jnp.zeros((side * inputs, side * outputs))
    total, _ = lax.scan(add_image, zero, (x, gradient))
    of_kernel = total.reshape(side, inputs, side, outputs).transpose(2, 0, 1, 3)
    # The gradient of the image is the convolution with the kernel turned round.
    of_image = _by_products(gradient, kernel[::-1, ::-1].swapaxes(2, 3))
    return of_image, of_kernel.astype(kernel.dtype)


def _columns(image: jax.Array, side: int) -> jax.Array:
    """Every pixel with its neighbours in the row: block j holds the pixel j - side // 2 further."""
    width, around = image.shape[1], side // 2
    padded = jnp.pad(image, ((0, 0), (around, around), (0, 0)))
    return jnp.concatenate([padded[:, j : j + width] for j in range(side)], axis=-1)


def _rows(gradient: jax.Array, side: int) -> jax.Array:
    """Every pixel with those output pixels above and below that kernel row i carries it to."""
    height, around = gradient.shape[0], side // 2
    padded = jnp.pad(gradient, ((around, around), (0, 0), (0, 0)))
    blocks = [padded[side - 1 - i : side - 1 - i + height] for i in range(side)]
    return jnp.concatenate(blocks, axis=-1)


def _as_float32(x: jax.Array) -> jax.Array:
    # Processors multiply bfloat16 slower than float32; float64 stays what it is.
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
