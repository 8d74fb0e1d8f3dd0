"""The interlinked CNN (iCNN): four rows at four scales that exchange features in every layer.

Row r has 8 * (r + 1) channels and sees the image after r max pools. Section 2.2 and figure 2 of the
paper; layer by layer it equals the original code. On a TPU it computes on BlockFeatures, elsewhere
on channels-first arrays; the layers and their parameters are the same.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.geometry import Size
from jax_stn_icnn.models.bridge import BridgeOutput, apply_bridge
from jax_stn_icnn.models.config import CHANNELS, INTERLINKS
from jax_stn_icnn.models.layers import Activation, Conv, ConvNorm
from jax_stn_icnn.models.outlining import outlined
from jax_stn_icnn.ops import space_to_depth
from jax_stn_icnn.ops.platform import current_implementations
from jax_stn_icnn.ops.pooling import max_pool
from jax_stn_icnn.ops.space_to_depth import BlockFeatures, Features

# Side of the blocks of each row on a TPU; further rows have blocks of one pixel.
BLOCK_SIDES = (4, 2, 2, 1)


class ICNN(nn.Module):
    """Predicts a label for every pixel of an image of any size.

    Attributes:
        num_labels: Number of labels, background included: 9 for the coarse network.
        channels: Channels of each row, from the finest to the coarsest. The paper's four rows have
            a receptive field of an eighth of the image; more rows have a larger one.
        interlinks: Number of interlinking layers.
        axis_name: Name of a mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters, statistics and logits are float32.
    """

    num_labels: int
    channels: tuple[int, ...] = CHANNELS
    interlinks: int = INTERLINKS
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, image: jax.Array, train: bool, bridge_output: BridgeOutput | None = None
    ) -> jax.Array:
        """Returns the logits of every pixel.

        Args:
            image: Floats in 0..1, (batch, height, width, 3).
            train: Whether BatchNorm uses, and records, the statistics of this batch.
            bridge_output: Output of a bridge for the image, if there is one.

        Returns:
            Logits, float32 (batch, height, width, num_labels).

        Raises:
            ValueError: The image is not a batch of RGB images.
        """
        check_shape("image", image, ("batch", "height", "width", 3))
        pixels = image.astype(self.dtype)
        if current_implementations().space_to_depth:
            block = _block(0)
            # The first row starts half a block earlier: its convolution then returns blocks at 0.
            first = space_to_depth.to_blocks(pixels, block, start=-block[0] // 2)
            others = space_to_depth.to_blocks(pixels, block)
            logits = self._logits(self._features(first, others, train, bridge_output))
            return space_to_depth.from_blocks(logits).astype(jnp.float32)
        # Channels first, since CPUs compute fastest along long rows of pixels.
        pixels = pixels.transpose(0, 3, 1, 2)
        logits = self._logits(self._features(pixels, pixels, train, bridge_output))
        return logits.astype(jnp.float32).transpose(0, 2, 3, 1)

    def _features(
        self, first: Features, image: Features, train: bool, bridge_output: BridgeOutput | None
    ) -> Features:
        """Returns the features of the head; row 0 sees `first`, the others `image`."""
        pyramid = [first]
        for r in range(1, len(self.channels)):
            image = _pool(image, r)
            pyramid.append(image)
        rows = [
            self._conv_norm(self.channels[r], nn.tanh, f"input_{r}")(x, train)
            for r, x in enumerate(pyramid)
        ]
        if bridge_output is not None:
            rows = apply_bridge(rows, bridge_output)
        for layer in range(self.interlinks):
            interlink = partial(ICNN._interlink, layer=layer, train=train)
            rows = outlined(interlink, self, rows, train=train)
        x = self._integrate(rows, train)
        return self._conv_norm(2 * self.num_labels + 8, nn.tanh, "head_1")(x, train)

    def _interlink(self, rows: list[Features], layer: int, train: bool) -> list[Features]:
        """Returns the rows after each has seen its neighbours above (pooled) and below."""
        linked = []
        for r, row in enumerate(rows):
            above = [_pool(rows[r - 1], r)] if r > 0 else []
            below = rows[r + 1] if r + 1 < len(rows) else None
            mix = self._conv_norm(self.channels[r], nn.relu, f"interlink_{layer}_row_{r}_mix")
            own = self._conv_norm(self.channels[r], nn.relu, f"interlink_{layer}_row_{r}_own")
            linked.append(own(mix(_concatenate([*above, row]), train, below), train))
        return linked

    def _integrate(self, rows: list[Features], train: bool) -> Features:
        """Returns row 0 after each row, from the bottom up, has been merged into the one above."""
        x = rows[-1]
        for r in reversed(range(len(rows) - 1)):
            x = self._conv_norm(self.channels[r], nn.tanh, f"integrate_{r}")(rows[r], train, x)
        return x

    def _logits(self, features: Features) -> Features:
        x = Conv(self.num_labels, 5, self.dtype, name="head_2")(features)
        return Conv(self.num_labels, 9, self.dtype, name="head_3")(x)

    def _conv_norm(self, features: int, activation: Activation, name: str) -> ConvNorm:
        return ConvNorm(features, activation, axis_name=self.axis_name, dtype=self.dtype, name=name)


def _block(row: int) -> Size:
    """Returns the (height, width) of a row's blocks on a TPU."""
    return (BLOCK_SIDES[row] if row < len(BLOCK_SIDES) else 1,) * 2


def _pool(x: Features, row: int) -> Features:
    """Returns the row above pooled to the size of a row."""
    if isinstance(x, BlockFeatures):
        return space_to_depth.max_pool(x, _block(row))
    return max_pool(x)


def _concatenate(features: list[Features]) -> Features:
    """Returns features of one size with their channels concatenated."""
    if isinstance(features[0], BlockFeatures):
        return space_to_depth.concatenate(features)
    return jnp.concatenate(features, axis=1)
