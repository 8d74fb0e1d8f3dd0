"""The bridge from the coarse network to a fine network: context for a patch.

After CLRNet (Huang et al., 2021), where attention connects the parser of the full face to the one
that refines a component: both train as one by another path than the window, and the second one sees
the context of the full face. Only the design in words is published; the form here is ours. The
coarse network's scores and features in the window, cropped by the window's theta, and their mean
over the face predict a weight for each position of the patch, and features to add. The output layer
is initialized to zero, so that adding a bridge does not change a trained network's output.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.geometry import Size
from jax_stn_icnn.models.config import BRIDGE_ROW
from jax_stn_icnn.models.layers import Conv
from jax_stn_icnn.ops.resize import upsample_bilinear
from jax_stn_icnn.ops.space_to_depth import BlockFeatures, Features, to_blocks

FEATURES = 8  # channels that the coarse network adds to its scores
WIDTH = 16  # hidden channels


class Context(NamedTuple):
    """Output of the coarse network for a window and for the face.

    Attributes:
        window: Its scores and features in the window, (batch, channels, height, width).
        face: Their means over the face, (batch, channels).
    """

    window: jax.Array
    face: jax.Array


class BridgeOutput(NamedTuple):
    """Output of a bridge for a fine network.

    Attributes:
        weight: Weight of each position, 0..2, (batch, height, width).
        features: Features added to the row `bridge_row`, (batch, channels, height, width).
    """

    weight: jax.Array
    features: jax.Array


def bridge_row(num_rows: int) -> int:
    """Returns the row of a fine network that a bridge adds its features to.

    Its pixels are about as large as those of the coarse segmentation.
    """
    return min(BRIDGE_ROW, num_rows - 1)


def context_size(patch_size: Size, num_rows: int) -> Size:
    """Returns (height, width) of the context of a patch: the size of the row it is added to.

    Args:
        patch_size: (height, width) of the patch.
        num_rows: Number of rows of the fine network.
    """
    side = 2 ** bridge_row(num_rows)
    return tuple(-(-length // side) for length in patch_size)


class Bridge(nn.Module):
    """Predicts a weight for each position of a patch, and features, from its context.

    Attributes:
        channels: Channels of the row that the features are added to.
        dtype: Type of the computation; parameters are float32.
    """

    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, context: Context) -> BridgeOutput:
        """Returns weights and features of the context's size.

        Args:
            context: Context of windows and faces.

        Raises:
            ValueError: Shapes do not match.
        """
        check_shape("context.window", context.window, ("batch", "channels", "height", "width"))
        check_shape("context.face", context.face, context.window.shape[:2])
        face = nn.Dense(WIDTH, dtype=self.dtype, name="face")(context.face.astype(self.dtype))
        x = Conv(WIDTH, 3, self.dtype, name="window")(context.window.astype(self.dtype))
        x = nn.relu(x + face[:, :, None, None])
        share = self.param("share", nn.initializers.zeros, (WIDTH, 1 + self.channels))
        bias = self.param("bias", nn.initializers.zeros, (1 + self.channels,))
        out = jnp.einsum("bchw,cf->bfhw", x, share.astype(self.dtype))
        out += bias.astype(self.dtype)[:, None, None]
        return BridgeOutput(2 * nn.sigmoid(out[:, 0]), out[:, 1:])


def apply_bridge(rows: list[Features], output: BridgeOutput) -> list[Features]:
    """Returns the rows of a fine network, weighted, with the bridge's features added to one.

    Args:
        rows: Features of each row, (batch, channels, height, width), or blocks.
        output: Output of the bridge.

    Returns:
        Rows of the same shapes.
    """
    weight, weighted = output.weight[..., None], list[Features]()
    for r, row in enumerate(rows):
        gets_features = r == bridge_row(len(rows))
        size = row.size if isinstance(row, BlockFeatures) else row.shape[2:]
        row_weight = weight if gets_features else upsample_bilinear(weight, size)
        if isinstance(row, BlockFeatures):
            blocks = row.blocks * jnp.tile(to_blocks(row_weight, row.block).blocks, row.channels)
            if gets_features:
                features = jnp.moveaxis(output.features, 1, -1)
                blocks += to_blocks(features, row.block).blocks
            weighted.append(row.of(blocks))
        else:
            row = row * row_weight[..., 0][:, None]
            weighted.append(row + output.features if gets_features else row)
    return weighted
