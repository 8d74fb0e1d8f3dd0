"""Self-attention over a picture of features: every pixel takes in what is like it, anywhere.

After Han and Yoon (2024), who put self-attention over the features of a face parser so that it sees
the context of the whole face. What their text leaves open is ours: the form is that of the
position attention of Fu et al. (Dual Attention Network, 2019), in several heads, and its share in
the sum starts at zero. So a network that gains it says at first what it said before.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.models.conv import Conv

HEADS = 4
NARROWER = 4  # channels of the picture over those of queries and keys


class SelfAttention(nn.Module):
    """Adds to each pixel a mean of all pixels, weighed by how like it they are.

    Attributes:
        dtype: type of the computation; parameters, and the softmax, stay float32.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features to features of the same shape, (batch, channels, height, width).

        Raises:
            ValueError: the channels do not divide among heads.
        """
        check_shape("x", x, ("batch", "channels", "height", "width"))
        batch, channels, height, width = x.shape
        if channels % (HEADS * NARROWER):
            raise ValueError(f"x has {channels} channels, but must divide by {HEADS * NARROWER}")

        def heads_of(name: str, features: int) -> jax.Array:
            out = Conv(features, 1, self.dtype, name=name)(x)
            return out.reshape(batch, HEADS, features // HEADS, height * width).swapaxes(2, 3)

        query, key = heads_of("query", channels // NARROWER), heads_of("key", channels // NARROWER)
        alike = jnp.einsum("bhqc,bhkc->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = nn.softmax(alike / query.shape[-1] ** 0.5).astype(self.dtype)
        mean = jnp.einsum("bhqk,bhkc->bhcq", weights, heads_of("value", channels))
        share = self.param("share", nn.initializers.zeros, (1,))
        return x + (share * mean.reshape(x.shape)).astype(x.dtype)
