"""The interlinked CNN (iCNN): four rows at four scales that exchange features layer by layer.

Row r has 8 * (r + 1) channels and sees the picture after r max pools. Section 2.2 and figure 2 of
the paper; layer by layer it equals the original code. On TPU its pictures are folded (`folded.py`),
elsewhere their channels come first; the layers and their parameters are the same.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.geometry import Size
from jax_stn_icnn.models.bridge import BridgeOutput, weigh
from jax_stn_icnn.models.conv import Conv
from jax_stn_icnn.models.norm import BlockBatchNorm, batch_norm
from jax_stn_icnn.models.outlining import outlined
from jax_stn_icnn.ops.space_to_depth import Folded, Picture, fold, folds, stack, unfold
from jax_stn_icnn.ops.space_to_depth import max_pool as max_pool_folded

CHANNELS = (8, 16, 24, 32)
INTERLINKS = 3
# Sides of the blocks that rows are folded into; of further rows 1, which is as good as not at all.
SIDES = (4, 2, 2, 1)

Activation = Callable[[jax.Array], jax.Array]


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, activation; the picture keeps its size.

    Attributes:
        features: output channels.
        activation: applied last; it keeps zero.
        kernel_size: side of the square kernel, odd.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation; parameters and statistics stay float32.
    """

    features: int
    activation: Activation
    kernel_size: int = 5
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Picture, train: bool, below: Picture | None = None) -> Picture:
        """Maps (batch, channels, height, width) to (batch, features, height, width), or folded.

        Args:
            x: the picture.
            train: whether BatchNorm uses (and records) the statistics of this batch.
            below: the row below, if any, of ceil(height / 2) and ceil(width / 2). It counts as
                upsampled to the size of `x`, every pixel twice, and stacked under it.

        Returns:
            The picture of features.
        """
        x = Conv(self.features, self.kernel_size, self.dtype, name="conv")(x, below)
        if isinstance(x, Folded):
            x = BlockBatchNorm(train, self.axis_name, self.dtype, name="norm")(x)
            # Zeroes stay zero: they are what fills up the last blocks.
            return x.of(self.activation(x.blocks))
        x = batch_norm(train, self.axis_name, self.dtype, "norm", axis=1)(x)
        return self.activation(x)


@jax.jit  # By its name, `files.jaxpr_to_onnx` finds it.
def max_pool(x: jax.Array) -> jax.Array:
    """3 x 3 max pool of stride 2, padded by one: size n becomes ceil(n / 2).

    Along one axis, then along the other: the gradient goes to the first of equal pixels, in reading
    order, as in PyTorch. Much faster on CPU than the gradient of `nn.max_pool`.

    Args:
        x: shape (batch, channels, height, width).

    Returns:
        Shape (batch, channels, ceil(height / 2), ceil(width / 2)).
    """
    return _max_of_three(_max_of_three(x, axis=3), axis=2)


def _max_of_three(x: jax.Array, axis: int) -> jax.Array:
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, x.shape[axis] % 2)
    x = jnp.pad(x, pad, constant_values=-jnp.inf)

    def every_second(first: int) -> jax.Array:
        return lax.slice_in_dim(x, first, x.shape[axis] - 2 + first, stride=2, axis=axis)

    highest = every_second(0)
    for first in (1, 2):
        highest = jnp.where(highest >= every_second(first), highest, every_second(first))
    return highest


def _block(row: int) -> Size:
    """What a row is folded into, if at all."""
    return (SIDES[row] if row < len(SIDES) else 1,) * 2


def _pool_into(x: Picture, row: int) -> Picture:
    """The row above, pooled to the size of a row."""
    return max_pool_folded(x, _block(row)) if isinstance(x, Folded) else max_pool(x)


def _stack(pictures: list[Picture]) -> Picture:
    """Pictures of one size, their channels one after the other."""
    if isinstance(pictures[0], Folded):
        return stack(pictures)
    return jnp.concatenate(pictures, axis=1)


class ICNN(nn.Module):
    """Labels every pixel of a picture of any size.

    Attributes:
        num_labels: labels to tell apart, background included: 9 for the coarse network.
        channels: of each row, from the finest to the coarsest. The paper's four see an eighth of
            the picture; more rows see more of it.
        interlinks: how often the rows exchange their features.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation; parameters, statistics and logits stay float32.
        platform: what it is compiled for, as JAX calls it; None is JAX's default. It changes how
            the result is computed, not what it is.
    """

    num_labels: int
    channels: tuple[int, ...] = CHANNELS
    interlinks: int = INTERLINKS
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    platform: str | None = None

    @nn.compact
    def __call__(
        self, image: jax.Array, train: bool, bridge_output: BridgeOutput | None = None
    ) -> jax.Array:
        """Scores every pixel.

        Args:
            image: floats in 0..1, shape (batch, height, width, 3).
            train: whether BatchNorm uses (and records) the statistics of this batch.
            bridge_output: what a bridge says of the image, if there is one.

        Returns:
            Logits, float32 (batch, height, width, num_labels).

        Raises:
            ValueError: the shape is not that of a batch of RGB images.
        """
        check_shape("image", image, ("batch", "height", "width", 3))
        if folds(self.platform):
            block, pixels = _block(0), image.astype(self.dtype)
            # Half a block earlier, since the first convolution then starts at 0.
            first = fold(pixels, block, start=-block[0] // 2)
            features = self._features(first, fold(pixels, block), train, bridge_output)
            return unfold(self._logits(features)).astype(jnp.float32)
        # Channels come first within: long rows of pixels are what processors are fast at.
        picture = image.astype(self.dtype).transpose(0, 3, 1, 2)
        features = self._features(picture, picture, train, bridge_output)
        return self._logits(features).astype(jnp.float32).transpose(0, 2, 3, 1)

    def _features(
        self, first: Picture, picture: Picture, train: bool, bridge_output: BridgeOutput | None
    ) -> Picture:
        """The head's features; row 0 sees `first`, the others the picture."""
        pyramid = [first]
        for r in range(1, len(self.channels)):
            picture = _pool_into(picture, r)
            pyramid.append(picture)
        rows = [
            self._conv_norm(self.channels[r], nn.tanh, f"input_{r}")(x, train)
            for r, x in enumerate(pyramid)
        ]
        if bridge_output is not None:
            rows = weigh(rows, bridge_output)
        for layer in range(self.interlinks):
            interlink = partial(ICNN._interlink, layer=layer, train=train)
            rows = outlined(interlink, self, rows, train=train)
        x = self._integrate(rows, train)
        return self._conv_norm(2 * self.num_labels + 8, nn.tanh, "head_1")(x, train)

    def _logits(self, features: Picture) -> Picture:
        """Logits of every pixel."""
        x = Conv(self.num_labels, 5, self.dtype, name="head_2")(features)
        return Conv(self.num_labels, 9, self.dtype, name="head_3")(x)

    def _conv_norm(self, features: int, activation: Activation, name: str) -> ConvNorm:
        return ConvNorm(features, activation, axis_name=self.axis_name, dtype=self.dtype, name=name)

    def _interlink(self, rows: list[Picture], layer: int, train: bool) -> list[Picture]:
        """Each row takes in its neighbours above (pooled) and below (upsampled)."""
        linked = []
        for r, row in enumerate(rows):
            above = [_pool_into(rows[r - 1], r)] if r > 0 else []
            below = rows[r + 1] if r + 1 < len(rows) else None
            x = _stack([*above, row])
            x = self._conv_norm(self.channels[r], nn.relu, f"interlink_{layer}_row_{r}_mix")(
                x, train, below
            )
            own = self._conv_norm(self.channels[r], nn.relu, f"interlink_{layer}_row_{r}_own")
            linked.append(own(x, train))
        return linked

    def _integrate(self, rows: list[Picture], train: bool) -> Picture:
        """Folds the rows into row 0, from the bottom up."""
        x = rows[-1]
        for r in reversed(range(len(rows) - 1)):
            x = self._conv_norm(self.channels[r], nn.tanh, f"integrate_{r}")(rows[r], train, x)
        return x
