"""The coarse network of the whole face: an interlinked CNN that sees and scores more finely.

Ours, not the paper's. Its pixels hold `detail` x `detail` pixels of a finer picture each. Row 0
sees them folded into channels (space to depth), so that hair and earrings are not averaged away;
the other rows see their mean, as in the paper. And the classes that have no window get their logits
at the finer picture's size, unfolded again (depth to space) from a head beside the paper's, which
adds what it sees to the coarse logits.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.models.conv import Conv
from jax_stn_icnn.models.icnn import ICNN, ConvNorm

HIDDEN = 48  # channels of the finer head


class WholeICNN(ICNN):
    """Labels every pixel coarsely, and the classes without a window finely.

    Attributes:
        windowless: the labels without a window, which get finer logits.
        detail: pixels of the finer picture in one of the coarse one, along an axis.
    """

    windowless: tuple[int, ...] = ()
    detail: int = 2

    # Unlike ICNN it returns two sets of logits; `STNiCNN.coarse_stage` alone tells them apart.
    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:  # type: ignore[override]
        """Scores every pixel.

        Args:
            image: floats in 0..1, (batch, height, width, 3), sizes multiples of `detail`.
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            Logits of all labels, float32 (batch, height / detail, width / detail, num_labels), and
            of those without a window, float32 (batch, windowless, height, width): channels first,
            since what follows is fast along rows of pixels.

        Raises:
            ValueError: the shape does not fit.
        """
        check_shape("image", image, ("batch", "height", "width", 3))
        if any(length % self.detail for length in image.shape[1:3]):
            raise ValueError(f"image has shape {image.shape}, but must divide by {self.detail}")
        folded = fold(image.astype(self.dtype), self.detail)
        batch, channels, height, width = folded.shape
        picture = folded.reshape(batch, channels // 3, 3, height, width).mean(axis=1)
        features = self._features(folded, picture, train)
        logits = self._logits(features)
        x = jnp.concatenate([features, folded], axis=1)
        x = ConvNorm(HIDDEN, nn.relu, 3, self.axis_name, self.dtype, name="detail_1")(x, train)
        x = Conv(len(self.windowless) * self.detail**2, 1, self.dtype, name="detail_2")(x)
        own = jnp.stack([logits[:, i] for i in self.windowless], axis=1)
        finer = unfold(
            x.astype(jnp.float32) + jnp.tile(own, (1, self.detail**2, 1, 1)), self.detail
        )
        return logits.transpose(0, 2, 3, 1), finer


def fold(image: jax.Array, detail: int) -> jax.Array:
    """Space to depth: (batch, h * detail, w * detail, C) -> (batch, detail**2 * C, h, w).

    Channels are ordered by row within the block, column within the block, channel.
    """
    batch, height, width, channels = image.shape
    blocks = image.reshape(batch, height // detail, detail, width // detail, detail, channels)
    return blocks.transpose(0, 2, 4, 5, 1, 3).reshape(
        batch, detail**2 * channels, height // detail, width // detail
    )


def unfold(features: jax.Array, detail: int) -> jax.Array:
    """Depth to space: the inverse of `fold`, but that channels stay first."""
    batch, channels, height, width = features.shape
    blocks = features.reshape(batch, detail, detail, channels // detail**2, height, width)
    return blocks.transpose(0, 3, 4, 1, 5, 2).reshape(
        batch, channels // detail**2, height * detail, width * detail
    )
