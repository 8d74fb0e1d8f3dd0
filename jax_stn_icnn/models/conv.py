"""The interlinked CNN's convolution: square odd kernel, stride 1, the picture keeps its size.

Channels come first here, (batch, channels, height, width). XLA's own convolution is fast on
accelerators. On CPU it is slow for so few channels, the gradient of the kernel most of all, so
there each image becomes one matrix product. Each channel of the picture, with its border of zeroes,
lies in one row of pixels, so that every shift is a slice. Both sides share the work of spreading
the k x k neighbours: the columns stack k shifts along x, (k * inputs) of them, the product with all
k rows of the kernel at once gives (k * outputs), and adding up its k shifts along y is the
convolution. One image at a time, because that fits the cache, which is where the speed comes from
(docs/performance_notebook.md has the figures).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jax_stn_icnn.geometry import Size
from jax_stn_icnn.models import folded
from jax_stn_icnn.models.folded import Folded, Picture

DIMENSIONS = ("NCHW", "HWIO", "NCHW")
# Pixels of a picture of odd size below which what its edges need costs more than not upsampling
# the row below spares: between 81 x 81 and 127 x 127.
FEW_PIXELS = 100 * 100


class Conv(nn.Module):
    """Convolution; parameters are those of `nn.Conv`.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel, odd.
        dtype: type of the computation; parameters stay float32.
        use_bias: whether it adds a bias.
    """

    features: int
    kernel_size: int
    dtype: jnp.dtype = jnp.float32
    use_bias: bool = True

    @nn.compact
    def weights(self, channels: int) -> tuple[jax.Array, jax.Array | None]:
        """Kernel (k, k, channels, features), and bias (features,) if it has one, for inputs."""
        shape = self.kernel_size, self.kernel_size, channels, self.features
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return kernel, bias

    def __call__(self, x: Picture, below: Picture | None = None) -> Picture:
        """Convolves a picture, and one of half its size as if it were upsampled and stacked below.

        Args:
            x: shape (batch, channels, height, width), or folded.
            below: shape (batch, more channels, ceil(height / 2), ceil(width / 2)), if any; folded
                like `x`.

        Returns:
            Shape (batch, features, height, width), or folded.
        """
        channels = _channels(x) + (0 if below is None else _channels(below))
        kernel, bias = self.weights(channels)
        if isinstance(x, Folded):
            return self._of_blocks(x, below, kernel, bias)
        rows, columns = x.shape[2:]
        odd = rows % 2 or columns % 2
        if below is not None and odd and rows * columns < FEW_PIXELS:
            doubled = jnp.repeat(jnp.repeat(below, 2, axis=2), 2, axis=3)
            x, below = jnp.concatenate([x, doubled[:, :, :rows, :columns]], axis=1), None
        own, of_below = jnp.split(kernel, [x.shape[1]], axis=2)
        out = convolve(x.astype(self.dtype), own.astype(self.dtype))
        if below is not None:
            out += convolve_upsampled(below.astype(self.dtype), of_below, x.shape[2:])
        if bias is None:
            return out
        # Added in float32: the bias's gradient is a sum over all pixels, which in bfloat16 would
        # stop growing where it is some hundred times its terms.
        return (out + bias[:, None, None]).astype(self.dtype)

    def _of_blocks(
        self, x: Folded, below: Folded | None, kernel: jax.Array, bias: jax.Array | None
    ) -> Folded:
        out = folded.convolve(x, kernel, below)
        if bias is not None:
            blocks = out.blocks + folded.to_blocks(bias, out.block)
            out = out.of(blocks.astype(self.dtype))
        return folded.blank(out)


def _channels(x: Picture) -> int:
    return x.channels if isinstance(x, Folded) else x.shape[1]


def convolve_upsampled(x: jax.Array, kernel: jax.Array, size: Size) -> jax.Array:
    """Convolves a picture whose every pixel counts as two by two, without making it larger.

    Of the k taps along an axis some fall on the same pixel, which ones depends on whether the
    output's place is even or odd. So each of the four kinds of place has a smaller kernel, the sums
    of those taps, and all four are channels of one convolution of the small picture.

    Args:
        x: shape (batch, inputs, ceil(rows / 2), ceil(columns / 2)).
        kernel: shape (k, k, inputs, outputs), k odd.
        size: (rows, columns) of the result. Of an odd size the last pixels count only once.

    Returns:
        Shape (batch, outputs, rows, columns), in the type of `x`.
    """
    batch, inputs, height, width = x.shape
    outputs = kernel.shape[3]
    falls_on = jnp.asarray(_pixels_of_taps(kernel.shape[0]), kernel.dtype)
    small = jnp.einsum(
        "psk,qtl,klio->stiopq", falls_on, falls_on, kernel, precision=lax.Precision.HIGHEST
    )
    small = small.reshape(*small.shape[:2], inputs, outputs * 4).astype(x.dtype)
    four = convolve(x, small).reshape(batch, outputs, 2, 2, height, width)
    whole = four.transpose(0, 1, 4, 2, 5, 3).reshape(batch, outputs, 2 * height, 2 * width)
    return whole[:, :, : size[0], : size[1]] - _from_beyond(x, kernel.astype(x.dtype), size)


def _from_beyond(x: jax.Array, kernel: jax.Array, size: Size) -> jax.Array | float:
    """What the row and the column that an odd size cuts off would give to what is left of it."""
    rows, columns = size
    around = kernel.shape[0] // 2
    beyond: jax.Array | float = 0.0
    if around and rows % 2:
        near = min(around, rows)
        row = jnp.repeat(x[:, :, -1:, :], 2, axis=3)
        strip = jnp.pad(row, ((0, 0), (0, 0), (near, 0), (0, 0)))
        given = convolve(strip, kernel)[:, :, :near, :columns]
        beyond += jnp.pad(given, ((0, 0), (0, 0), (rows - near, 0), (0, 0)))
    if around and columns % 2:
        near = min(around, columns)
        # Without the corner, which is the row's already if both sizes are odd.
        column = jnp.repeat(x[:, :, :, -1:], 2, axis=2)[:, :, :rows]
        strip = jnp.pad(column, ((0, 0), (0, 0), (0, 0), (near, 0)))
        given = convolve(strip, kernel)[..., :near]
        beyond += jnp.pad(given, ((0, 0), (0, 0), (0, 0), (columns - near, 0)))
    return beyond


def _pixels_of_taps(side: int) -> np.ndarray:
    """One where, at places of a parity, a tap falls on a small pixel: (2, small side, side)."""
    around = side // 2
    reach = (around + 1) // 2
    found = np.zeros((2, 2 * reach + 1, side))
    for parity in (0, 1):
        for tap in range(side):
            found[parity, (parity + tap - around) // 2 + reach, tap] = 1
    return found


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves with stride 1 and zeroes around the picture.

    Args:
        x: shape (batch, inputs, height, width).
        kernel: shape (k, k, inputs, outputs), k odd.

    Returns:
        Shape (batch, outputs, height, width), in the type of `x`. It can be differentiated in
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
    side, (height, width) = kernel.shape[0], x.shape[2:]
    matrix = _matrix(kernel)

    def of_image(image: jax.Array) -> jax.Array:
        return _add_rows(jnp.dot(matrix, _columns(image, side)), side, (height, width)).astype(
            x.dtype
        )

    return lax.map(of_image, x)


def _gradients_by_products(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    side, _, inputs, outputs = kernel.shape
    height, width = x.shape[2:]
    # The gradient of the image is the convolution with the kernel turned round.
    matrix = _matrix(kernel[::-1, ::-1].swapaxes(2, 3))

    def add_image(
        total: jax.Array, image_and_gradient: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        image, of_output = image_and_gradient
        # What the gradient's columns are made of serves the kernel's gradient too.
        columns = _columns(of_output, side)
        of_image = _add_rows(jnp.dot(matrix, columns), side, (height, width)).astype(x.dtype)
        rows = _rows(image, side, columns.shape[1])
        return total + lax.dot_general(rows, columns, (((1,), (1,)), ((), ()))), of_image

    zero = jnp.zeros((side * inputs, side * outputs), matrix.dtype)
    total, of_image = lax.scan(add_image, zero, (x, gradient))
    # Columns of the gradient count its shift, the kernel that of the image: the other way round.
    of_kernel = total.reshape(side, inputs, side, outputs)[:, :, ::-1].transpose(0, 2, 1, 3)
    return of_image, of_kernel.astype(kernel.dtype)


def _matrix(kernel: jax.Array) -> jax.Array:
    """The kernel as (k rows * outputs, k columns * inputs)."""
    side, _, inputs, outputs = kernel.shape
    return _as_float32(kernel).transpose(0, 3, 1, 2).reshape(side * outputs, side * inputs)


def _columns(image: jax.Array, side: int) -> jax.Array:
    """Every pixel of the picture with its border, and its neighbours in the row.

    Block j of (side * channels) holds the pixel j further; rows are width + side - 1 long.
    """
    around = side // 2
    bordered = jnp.pad(_as_float32(image), ((0, 0), (around, around), (around, around)))
    flat = bordered.reshape(image.shape[0], -1)
    return _shifts(flat, side, 1, flat.shape[1] - 2 * around)


def _rows(image: jax.Array, side: int, length: int) -> jax.Array:
    """Every pixel with its neighbours in the column, laid out as `_columns` of the same picture.

    Block i of (side * channels) holds the pixel i - side + 1 rows of the bordered picture further.
    """
    border = side - 1
    below = jnp.pad(_as_float32(image), ((0, 0), (border, border), (0, border)))
    return _shifts(below.reshape(image.shape[0], -1), side, image.shape[2] + border, length)


def _shifts(flat: jax.Array, count: int, step: int, length: int) -> jax.Array:
    return jnp.concatenate([flat[:, i * step : i * step + length] for i in range(count)])


def _add_rows(products: jax.Array, side: int, size: tuple[int, int]) -> jax.Array:
    """Adds up what the kernel's rows give to each pixel: (outputs, height, width)."""
    height, width = size
    row, outputs = width + side - 1, products.shape[0] // side
    length = height * row - (side - 1)
    shifted = [
        products[i * outputs : (i + 1) * outputs, i * row : i * row + length] for i in range(side)
    ]
    total = jnp.pad(sum(shifted[1:], shifted[0]), ((0, 0), (0, side - 1)))
    return total.reshape(outputs, height, row)[:, :, :width]


def _as_float32(x: jax.Array) -> jax.Array:
    # Processors multiply bfloat16 slower than float32; float64 stays what it is.
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
