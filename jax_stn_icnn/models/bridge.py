"""The bridge from the coarse network to a fine one: what surrounds a patch, and what it is part of.

After CLRNet (Huang et al., 2021), who join the parser of the whole face and the one that refines a
component by attention, so that both train as one by another way than the window, and show the
second the context of the whole face. Of their design only that is published in words; the form is
ours. The coarse network's scores and features of the window, cut by the window's own theta, and
their mean over the face say how much each place of the patch counts, and add features of their own.
The shares of its hidden channels start at zero: a network that gains a bridge says at first what it
said before, and from there the loss decides what it hears, not random features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.geometry import Size
from jax_stn_icnn.models.conv import Conv
from jax_stn_icnn.ops import enlarge
from jax_stn_icnn.ops.space_to_depth import Folded, Picture, fold

FEATURES = 8  # of the coarse network, beside its scores
WIDTH = 16  # channels in which scores, features and face are weighed
ROW = 2  # of the fine network: its pixels are about as large as the rough mask's


class Context(NamedTuple):
    """What the coarse network makes of a window and of the face.

    Attributes:
        window: its scores and features there, (batch, channels, height, width).
        face: their means over the face, (batch, channels).
    """

    window: jax.Array
    face: jax.Array


class BridgeOutput(NamedTuple):
    """What a bridge says to a fine network.

    Attributes:
        weight: how much each place counts, 0..2, (batch, height, width).
        features: to be added in row `row_of`, (batch, channels, height, width).
    """

    weight: jax.Array
    features: jax.Array


def row_of(num_rows: int) -> int:
    """The row of a fine network that a bridge leads to; row r has 1 / 2**r of the pixels a side."""
    return min(ROW, num_rows - 1)


def context_size(patch_size: Size, num_rows: int) -> Size:
    """(height, width) of the context of a patch: those of the row that it is added to.

    Args:
        patch_size: (height, width) of the patch.
        num_rows: how many rows the fine network has.

    Returns:
        The patch's height and width over 2**`row_of(num_rows)`, rounded up.
    """
    side = 2 ** row_of(num_rows)
    return tuple(-(-length // side) for length in patch_size)


class Bridge(nn.Module):
    """Weighs a patch by its context.

    Attributes:
        channels: of the row that it leads to.
        dtype: type of the computation; parameters stay float32.
    """

    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, context: Context) -> BridgeOutput:
        """Says what the context means for the patch.

        Args:
            context: of windows and faces.

        Returns:
            The weight of each place, and features, both of the context's size.

        Raises:
            ValueError: shapes do not fit.
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


def weigh(rows: list[Picture], bridge_output: BridgeOutput) -> list[Picture]:
    """Weighs the rows of a fine network, and adds a bridge's features to the one it leads to.

    Args:
        rows: features, row r of (batch, channels, height, width), or folded.
        bridge_output: what the bridge says.

    Returns:
        Rows of the same shapes.
    """
    weight, weighed = bridge_output.weight[..., None], list[Picture]()
    for r, row in enumerate(rows):
        led_to = r == row_of(len(rows))
        size = row.size if isinstance(row, Folded) else row.shape[2:]
        of_row = weight if led_to else enlarge(weight, size)
        if isinstance(row, Folded):
            blocks = row.blocks * jnp.tile(fold(of_row, row.block).blocks, row.channels)
            if led_to:
                blocks += fold(jnp.moveaxis(bridge_output.features, 1, -1), row.block).blocks
            weighed.append(row.of(blocks))
        else:
            row = row * of_row[..., 0][:, None]
            weighed.append(row + bridge_output.features if led_to else row)
    return weighed
