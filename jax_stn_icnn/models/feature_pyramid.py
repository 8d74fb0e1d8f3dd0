"""A feature pyramid: it merges an encoder's features of all scales. Channels first."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.models.layers import ConvNorm

PYRAMID = 64  # channels of the feature pyramid


class FeaturePyramid(nn.Module):
    """A feature pyramid (Lin et al., 2017), of which only the largest scale is returned.

    Attributes:
        axis_name: Name of a mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    axis_name: str | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, features: Sequence[jax.Array], train: bool) -> jax.Array:
        """Returns the merged features.

        Args:
            features: Of several scales, (batch, channels, height, width), each half as high and
                wide as the one before.
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            (batch, PYRAMID, height, width), in the size of the first features.
        """
        total = None
        for i, each in reversed(list(enumerate(features))):
            # The scales of an encoder's features differ by an order of magnitude: hence BatchNorm.
            lateral = ConvNorm(
                PYRAMID, lambda x: x, 1, self.axis_name, self.dtype, name=f"lateral_{i}"
            )(each, train)
            total = lateral if total is None else _add_upsampled(lateral, total)
        smooth = ConvNorm(PYRAMID, nn.relu, 3, self.axis_name, self.dtype, name="smooth")
        return smooth(total, train)


def _add_upsampled(x: jax.Array, below: jax.Array) -> jax.Array:
    """Returns an image plus one of half the size, each pixel of which is repeated."""
    batch, channels, height, width = below.shape
    pairs = x.reshape(batch, channels, height, 2, width, 2)
    return (pairs + below[:, :, :, None, :, None]).reshape(x.shape)
