"""A U-Net, the coarse network of the whole face: it sees all of the picture, and scores it finely.

Ours, not the paper's, after Ronneberger et al. (2015). Skin, hair and clothes are told apart by
what surrounds them, and the interlinked CNN's lowest row sees an eighth of the picture. Here most
of the work is done on few pixels: the picture comes in folded (space to depth) to 64 x 64, three
max pools go down to 8 x 8, where the mean over the picture is added to every pixel (Liu et al.,
ParseNet, 2015), and each row on the way up takes in its own of the way down. The classes come out
unfolded (depth to space): all of them at 128 x 128, and those without a window, where `coarse_stride` is
above one, at the size of the picture that came in, and smoothed.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.models.attention import SelfAttention
from jax_stn_icnn.models.bridge import FEATURES
from jax_stn_icnn.models.conv import Conv, convolve
from jax_stn_icnn.models.icnn import ConvNorm, max_pool
from jax_stn_icnn.ops.space_to_depth import folds, pick

CHANNELS = (32, 64, 96, 128)
FOLD = 2  # pixels of the rough mask in one of the first row, along an axis
HEAD = 64  # channels from which all logits are read
SMOOTH = np.array((1, 2, 1)) / 4  # binomial


class CoarseOutput(NamedTuple):
    """What a coarse network says of coarse images.

    Attributes:
        all: logits of all classes, (batch, 128, 128, classes).
        whole: those of the classes without a window, channels first, (batch, global_ids,
            *coarse_image_size); None where background is the only one.
        edges: of a pixel's lying on an edge between classes, (batch, 128, 128); None where the
            model has no such task.
        features: for a bridge to the fine networks, channels first, (batch, features, 128, 128);
            None where the model has none.
    """

    all: jax.Array
    whole: jax.Array | None
    edges: jax.Array | None
    features: jax.Array | None


class UNet(nn.Module):
    """Labels every pixel coarsely, and the classes without a window finely.

    Attributes:
        num_labels: labels to tell apart, background included.
        global_ids: the labels without a window, which get finer logits if `coarse_stride` is above one.
        channels: of each row, from the finest to the coarsest.
        coarse_stride: pixels of the picture in one of the rough mask, along an axis.
        attention: how many of the lowest rows have self-attention.
        edges: whether it says where edges between labels are, too.
        bridge: whether it gives features for a bridge to the fine networks.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation; parameters, statistics and logits stay float32.
        platform: what it is compiled for, as JAX calls it; None is JAX's default. It changes how
            the result is computed, not what it is.
    """

    num_labels: int
    global_ids: tuple[int, ...]
    channels: tuple[int, ...] = CHANNELS
    coarse_stride: int = 1
    attention: int = 0
    edges: bool = False
    bridge: bool = False
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    platform: str | None = None

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> CoarseOutput:
        """Scores every pixel.

        Args:
            image: floats in 0..1, (batch, height, width, 3), sizes multiples of `2 * coarse_stride`.
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            Logits, float32, their 128 x 128 being height / coarse_stride and width / coarse_stride here. Most are
            channels first, since what follows is fast along rows of pixels.

        Raises:
            ValueError: the shape does not fit.
        """
        check_shape("image", image, ("batch", "height", "width", 3))
        side = FOLD * self.coarse_stride
        if any(length % side for length in image.shape[1:3]):
            raise ValueError(f"image has shape {image.shape}, but must divide by {side}")
        products = folds(self.platform)
        unfolded = unfold_by_products if products else unfold
        folded = (fold_by_products if products else fold)(image.astype(self.dtype), side)
        x = jnp.concatenate([self._features(folded, train), folded], axis=1)
        x = self._conv_norm(HEAD, "head")(x, train)
        logits, whole = (self._scores_by_products if products else self._scores)(x)
        if self.coarse_stride > 1 and products:
            whole = smooth_by_products(whole.astype(self.dtype)).astype(jnp.float32)
        elif self.coarse_stride > 1:
            whole = smooth(whole)
        edges = features = None
        if self.edges:
            edges = unfolded(Conv(FOLD**2, 1, self.dtype, name="edges")(x), FOLD)[:, 0]
            edges = edges.astype(jnp.float32)
        if self.bridge:
            features = unfolded(Conv(FEATURES * FOLD**2, 1, self.dtype, name="bridge")(x), FOLD)
        return CoarseOutput(logits.transpose(0, 2, 3, 1), whole, edges, features)

    def _scores(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits of all classes, and finer ones of those without a window, channels first."""
        side = FOLD * self.coarse_stride
        logits = unfold(Conv(self.num_labels * FOLD**2, 1, self.dtype, name="logits")(x), FOLD)
        logits = logits.astype(jnp.float32)
        whole = jnp.stack([logits[:, i] for i in self.global_ids], axis=1)
        if self.coarse_stride > 1:
            finer = Conv(len(self.global_ids) * side**2, 1, self.dtype, name="finer")(x)
            repeated = jnp.repeat(
                jnp.repeat(whole, self.coarse_stride, axis=2), self.coarse_stride, axis=3
            )
            whole = repeated + unfold(finer.astype(jnp.float32), side)
        return logits, whole

    def _scores_by_products(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same, with weights chosen, repeated and added up in place of scores."""
        side, count = FOLD * self.coarse_stride, len(self.global_ids)
        of_all = Conv(self.num_labels * FOLD**2, 1, self.dtype, name="logits").weights(x.shape[1])

        def chosen(weights: jax.Array) -> jax.Array:
            blocks = weights.reshape(-1, FOLD, FOLD, self.num_labels)
            blocks = jnp.stack([blocks[..., i] for i in self.global_ids], axis=-1)
            repeated = jnp.repeat(
                jnp.repeat(blocks, self.coarse_stride, axis=1), self.coarse_stride, axis=2
            )
            return repeated.reshape(*weights.shape[:-1], count * side**2)

        of_whole = jax.tree.map(chosen, of_all)
        if self.coarse_stride > 1:
            finer = Conv(count * side**2, 1, self.dtype, name="finer").weights(x.shape[1])
            of_whole = jax.tree.map(jnp.add, of_whole, finer)

        def scores(weights: Any, side: int) -> jax.Array:
            kernel, bias = weights
            out = convolve(x, kernel.astype(self.dtype)) + bias[:, None, None]
            return unfold_by_products(out.astype(self.dtype), side).astype(jnp.float32)

        return scores(of_all, FOLD), scores(of_whole, side)

    def _features(self, x: jax.Array, train: bool) -> jax.Array:
        """Down the rows and up again: features of the first row, channels first."""
        rows = []
        for r, channels in enumerate(self.channels):
            x = self._conv_norm(channels, f"down_{r}")(x if r == 0 else max_pool(x), train)
            x += self._conv_norm(channels, f"own_{r}")(x, train)
            if r >= len(self.channels) - self.attention:
                x = SelfAttention(self.dtype, name=f"attention_{r}")(x)
            rows.append(x)
        mean = jnp.mean(x.astype(jnp.float32), axis=(2, 3))
        mean = nn.Dense(x.shape[1], dtype=self.dtype, name="mean")(mean)
        x += nn.relu(mean)[:, :, None, None]
        for r in reversed(range(len(self.channels) - 1)):
            x = self._conv_norm(self.channels[r], f"up_{r}")(rows[r], train, x)
        return x

    def _conv_norm(self, features: int, name: str) -> ConvNorm:
        return ConvNorm(features, nn.relu, 3, self.axis_name, self.dtype, name=name)


def smooth(x: jax.Array) -> jax.Array:
    """Weighs every pixel with its neighbours, along one axis and then the other.

    Each pixel of an unfolded block is scored by a kernel of its own, so that where two classes are
    nearly as likely, neighbours differ by nothing but their kernels: the checkerboards of Odena et
    al., "Deconvolution and checkerboard artifacts" (2016). Beyond the edges their pixels go on.

    Args:
        x: (batch, channels, height, width).

    Returns:
        The same shape.
    """
    reach = len(SMOOTH) // 2
    for axis in (2, 3):
        size = x.shape[axis]
        first, last = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, size - 1))
        padded = jnp.concatenate([first] * reach + [x] + [last] * reach, axis)
        shifted = [lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(SMOOTH))]
        x = functools.reduce(jnp.add, (float(w) * s for w, s in zip(SMOOTH, shifted, strict=True)))
    return x


def smooth_by_products(x: jax.Array) -> jax.Array:
    """`smooth` by products: on a TPU neighbours along a row are slow to bring together."""
    down, across = (jnp.asarray(_smoothing(n), x.dtype) for n in x.shape[2:])
    return jnp.einsum("yh,bchw,xw->bcyx", down, x, across, precision="highest")


def _smoothing(size: int) -> np.ndarray:
    """The matrix that smooths a row of pixels."""
    at = np.arange(size)
    matrix = np.zeros((size, size))
    for i, weight in enumerate(SMOOTH):
        np.add.at(matrix, (at, np.clip(at + i - len(SMOOTH) // 2, 0, size - 1)), weight)
    return matrix


def fold(image: jax.Array, side: int) -> jax.Array:
    """Space to depth.

    Args:
        image: (batch, h * side, w * side, C).
        side: of a block, in pixels.

    Returns:
        (batch, side**2 * C, h, w), channels ordered by row within the block, column within the
        block, channel.
    """
    batch, height, width, channels = image.shape
    blocks = image.reshape(batch, height // side, side, width // side, side, channels)
    return blocks.transpose(0, 2, 4, 5, 1, 3).reshape(
        batch, side**2 * channels, height // side, width // side
    )


def unfold(features: jax.Array, side: int) -> jax.Array:
    """Depth to space: the inverse of `fold`, but that channels stay first.

    Args:
        features: (batch, side**2 * C, h, w), channels ordered as by `fold`.
        side: of a block, in pixels.

    Returns:
        (batch, C, h * side, w * side).
    """
    batch, channels, height, width = features.shape
    blocks = features.reshape(batch, side, side, channels // side**2, height, width)
    return blocks.transpose(0, 3, 4, 1, 5, 2).reshape(
        batch, channels // side**2, height * side, width * side
    )


def fold_by_products(image: jax.Array, side: int) -> jax.Array:
    """`fold` as a convolution with ones, which is exact, and much faster on TPU than a copy.

    Args:
        image: as for `fold`.
        side: likewise.

    Returns:
        As of `fold`.
    """
    row, column, channel = np.indices((side, side, image.shape[3]))
    return pick(image, (1, 1), channel, row, column, strides=(side, side)).transpose(0, 3, 1, 2)


def unfold_by_products(features: jax.Array, side: int) -> jax.Array:
    """`unfold` likewise: a product with ones puts columns in their place.

    Args:
        features: as for `unfold`.
        side: likewise.

    Returns:
        As of `unfold`.
    """
    batch, channels, height, width = features.shape
    blocks = features.reshape(batch, side, side, channels // side**2, height, width)
    ones = jnp.eye(width * side, dtype=features.dtype).reshape(-1, width, side)
    pixels = jnp.einsum("bpqchw,xwq->bchpx", blocks, ones, precision="highest")
    return pixels.reshape(batch, channels // side**2, height * side, width * side)
