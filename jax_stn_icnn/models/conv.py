"""The interlinked CNN's convolution: square odd kernel, stride 1, the picture keeps its size.

Channels come first here, (batch, channels, height, width). XLA's own convolution is fast on
accelerators. On CPU it is slow for so few channels, the gradient of the kernel most of all, so
there an image becomes one matrix product. Both sides share the work of spreading the k x k
neighbours: the columns stack k shifts along x, (k * inputs) of them, the product with all k rows of
the kernel at once gives (k * outputs), and adding up its k shifts along y, whole rows further, is
the convolution. One image at a time, or a few small ones, because that fits the cache, which is
where the speed comes from (docs/performance_notebook.md has the figures).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jax_stn_icnn.geometry import Size
from jax_stn_icnn.ops import space_to_depth
from jax_stn_icnn.ops.space_to_depth import Folded, Picture

DIMENSIONS = ("NCHW", "HWIO", "NCHW")
# Numbers at most in the columns of several images' product: one megabyte.
COLUMNS = 2**18


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
        out = space_to_depth.convolve(x, kernel, below)
        if bias is not None:
            blocks = out.blocks + space_to_depth.to_blocks(bias, out.block)
            out = out.of(blocks.astype(self.dtype))
        return space_to_depth.blank(out)


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
    small = _kernels_of_places(kernel).astype(x.dtype)
    four = convolve(x, small).reshape(batch, 2, 2, outputs, height, width)
    whole = four.transpose(0, 3, 4, 1, 5, 2).reshape(batch, outputs, 2 * height, 2 * width)
    return whole[:, :, : size[0], : size[1]] - _from_beyond(x, kernel.astype(x.dtype), size)


def _from_beyond(x: jax.Array, kernel: jax.Array, size: Size) -> jax.Array | float:
    """What the row and the column that an odd size cuts off would give to what is left of it."""
    rows, columns = size
    around = kernel.shape[0] // 2
    beyond: jax.Array | float = 0.0
    if around and rows % 2:
        given = _from_line(jnp.repeat(x[:, :, -1], 2, axis=2), kernel, columns)[:, :, -rows:]
        beyond += jnp.pad(given, ((0, 0), (0, 0), (rows - given.shape[2], 0), (0, 0)))
    if around and columns % 2:
        # Without the corner, which is the row's already if both sizes are odd.
        line = jnp.repeat(x[..., -1], 2, axis=2)[:, :, :rows]
        given = _from_line(line, kernel.swapaxes(0, 1), rows)[:, :, -columns:].swapaxes(2, 3)
        beyond += jnp.pad(given, ((0, 0), (0, 0), (0, 0), (columns - given.shape[3], 0)))
    return beyond


def _from_line(line: jax.Array, kernel: jax.Array, length: int) -> jax.Array:
    """What a row of pixels gives to the rows before it, by a kernel's rows after the middle one.

    Args:
        line: (batch, inputs, pixels).
        kernel: (k, k, inputs, outputs).
        length: of the rows.

    Returns:
        (batch, outputs, k // 2, length), the row next to the line last.
    """
    side, _, inputs, outputs = kernel.shape
    around = side // 2
    padded = jnp.pad(line, ((0, 0), (0, 0), (around, around)))
    shifts = jnp.stack([padded[:, :, i : i + length] for i in range(side)], axis=1)
    matrix = kernel[:around:-1].transpose(3, 0, 1, 2).reshape(outputs * around, side * inputs)
    given = jnp.einsum("mk,bkn->bmn", matrix, shifts.reshape(-1, side * inputs, length))
    return given.reshape(-1, outputs, around, length)


def _kernels_of_places(kernel: jax.Array) -> jax.Array:
    """The kernels of the four kinds of place, even row and even column first, side by side.

    One product that leaves inputs and outputs as they lie: two, one for each axis, were a twelfth
    of a parse of one face on CPU (docs/performance_notebook.md).

    Args:
        kernel: (k, k, inputs, outputs).

    Returns:
        (small side, small side, inputs, 4 * outputs).
    """
    side, _, inputs, outputs = kernel.shape
    falls_on = _pixels_of_taps(side)
    small_side = falls_on.shape[1]
    both = np.einsum("psk,qtl->stpqkl", falls_on, falls_on).reshape(-1, side**2)
    taps = kernel.reshape(side**2, inputs * outputs)
    small = jnp.matmul(jnp.asarray(both, kernel.dtype), taps, precision=lax.Precision.HIGHEST)
    small = small.reshape(small_side, small_side, 4, inputs, outputs).swapaxes(2, 3)
    return small.reshape(small_side, small_side, inputs, 4 * outputs)


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
    side, size = kernel.shape[0], x.shape[2:]
    matrix = _matrix(kernel)

    def of_images(_: None, images: jax.Array) -> tuple[None, jax.Array]:
        products = _product(matrix, _columns(images, side))
        return None, _add_rows(products, side, _count(images), size).astype(x.dtype)

    # Two at a time, side by side on the cores; the two sides of one face need no loop so.
    unroll = 2 if _is_number(x.shape[0]) else 1
    _, out = lax.scan(of_images, None, _groups(x, side * x.shape[1]), unroll=unroll)
    return out.reshape(x.shape[0], -1, *size)


def _gradients_by_products(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    side, _, inputs, outputs = kernel.shape
    size = x.shape[2:]
    # The gradient of the image is the convolution with the kernel turned round.
    matrix = _matrix(kernel[::-1, ::-1].swapaxes(2, 3))

    def add_images(
        total: jax.Array, images_and_gradients: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        images, of_outputs = images_and_gradients
        # What the gradient's columns are made of serves the kernel's gradient too.
        columns = _columns(of_outputs, side)
        of_images = _add_rows(_product(matrix, columns), side, _count(images), size)
        total += lax.dot_general(_rows(images, side), columns, (((1,), (1,)), ((), ())))
        return total, of_images.astype(x.dtype)

    zero = jnp.zeros((side * inputs, side * outputs), matrix.dtype)
    height = side * max(inputs, outputs)
    groups = _groups(x, height), _groups(gradient, height)
    total, of_images = lax.scan(add_images, zero, groups)
    # Columns of the gradient count its shift, the kernel that of the image: the other way round.
    of_kernel = total.reshape(side, inputs, side, outputs)[:, :, ::-1].transpose(0, 2, 1, 3)
    return of_images.reshape(x.shape), of_kernel.astype(kernel.dtype)


def _groups(images: jax.Array, height: int) -> jax.Array:
    """Images that go through one product together: (groups, images of a group, ...).

    An image that goes alone has no axis for its group: to move one of length 1, XLA copies images.

    Args:
        images: (batch, channels, height, width).
        height: of the columns.
    """
    batch, _, rows, columns = images.shape
    most = max(COLUMNS // (height * rows * columns), 1)
    count = max(i for i in range(1, most + 1) if batch % i == 0) if _is_number(batch) else 1
    return images if count == 1 else images.reshape(batch // count, count, *images.shape[1:])


def _count(images: jax.Array) -> int:
    """How many are in a group of `_groups`."""
    return 1 if images.ndim == 3 else images.shape[0]


def _is_number(batch: int) -> bool:
    """Whether it is one; that of an exported program is a symbol."""
    return isinstance(batch, int)


def _matrix(kernel: jax.Array) -> jax.Array:
    """The kernel as (k columns * inputs, k rows * outputs): outputs stay last, a fast copy."""
    side, _, inputs, outputs = kernel.shape
    return _as_float32(kernel).transpose(1, 2, 0, 3).reshape(side * inputs, side * outputs)


def _product(matrix: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.einsum("km,kn->mn", matrix, columns)


def _columns(images: jax.Array, side: int) -> jax.Array:
    """Every pixel's neighbours in its row, the images of a group with zeroes above and below.

    Block j of (side * channels) holds the pixel j - side // 2 further.
    """
    around, width = side // 2, images.shape[-1]
    padded = _pad(images, around, around)
    return _stack([padded[..., j : j + width] for j in range(side)])


def _rows(images: jax.Array, side: int) -> jax.Array:
    """Every pixel's neighbours in its column, laid out as `_columns` of the same pictures.

    Block i of (side * channels) holds the pixel i - side + 1 rows further than there.
    """
    border = side - 1
    padded = _pad(images, border, 0)
    height = images.shape[-2] + border
    return _stack([padded[:, :, i : i + height] for i in range(side)])


def _pad(images: jax.Array, rows: int, columns: int) -> jax.Array:
    """Zeroes around the images of a group, whose channels now come before them."""
    pixels = _as_float32(images)
    pixels = pixels[:, None] if images.ndim == 3 else pixels.swapaxes(0, 1)
    return jnp.pad(pixels, ((0, 0), (0, 0), (rows, rows), (columns, columns)))


def _stack(shifts: list[jax.Array]) -> jax.Array:
    """A row for every channel of every shift."""
    return jnp.stack(shifts).reshape(len(shifts) * shifts[0].shape[0], -1)


def _add_rows(products: jax.Array, side: int, count: int, size: Size) -> jax.Array:
    """Adds up what the kernel's rows give to each pixel of a group, whose shape it returns."""
    height, width = size
    rows = products.reshape(side, -1, count, (height + side - 1) * width)
    shifted = [rows[i, :, :, i * width : (i + height) * width] for i in range(side)]
    total = sum(shifted[1:], shifted[0])
    total = total[:, 0] if count == 1 else total.swapaxes(0, 1)
    return total.reshape(*total.shape[:-1], height, width)


def _as_float32(x: jax.Array) -> jax.Array:
    # Processors multiply bfloat16 slower than float32; float64 stays what it is.
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
