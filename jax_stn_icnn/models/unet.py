"""A U-Net, the coarse network of the full face: a large receptive field and finer global classes.

Ours, not the paper's, after Ronneberger et al. (2015). Context tells skin, hair and clothes apart,
and the lowest row of the interlinked CNN sees an eighth of the image only. Most of the work is done
on few pixels: space-to-depth reduces the image to half the size of the coarse segmentation (64 x
64), and three max pools reduce it to 8 x 8, where the mean over the image is added to every pixel
(Liu et al., ParseNet, 2015). Each row on the way up merges the features of its row on the way down.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.models.attention import SelfAttention
from jax_stn_icnn.models.coarse import CoarseNetwork
from jax_stn_icnn.ops.pooling import max_pool


class UNet(CoarseNetwork):
    """A coarse network whose features are those of a U-Net on the image's blocks."""

    def _features(self, image: jax.Array, blocks: jax.Array, train: bool) -> jax.Array:
        """Returns the features of the first row, channels first, after all rows down and up."""
        channels = self.config.coarse_channels
        x, rows = blocks, []
        for r, width in enumerate(channels):
            x = self._conv_norm(width, f"down_{r}")(x if r == 0 else max_pool(x), train)
            x += self._conv_norm(width, f"own_{r}")(x, train)
            if r >= len(channels) - self.config.attention:
                x = SelfAttention(self.dtype, name=f"attention_{r}")(x)
            rows.append(x)
        mean = jnp.mean(x.astype(jnp.float32), axis=(2, 3))
        mean = nn.Dense(x.shape[1], dtype=self.dtype, name="mean")(mean)
        x += nn.relu(mean)[:, :, None, None]
        for r in reversed(range(len(channels) - 1)):
            x = self._conv_norm(channels[r], f"up_{r}")(rows[r], train, x)
        return x
