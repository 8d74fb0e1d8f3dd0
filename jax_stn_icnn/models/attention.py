"""Self-attention over an image of features: every pixel attends to all pixels.

After Han and Yoon (2024), who apply self-attention to the features of a face parser to add the
context of the full face. Their text leaves the form open; this one is the position attention of Fu
et al. (Dual Attention Network, 2019) with several heads, whose share in the sum is initialized to
zero, so that adding it to a trained network does not change the network's output.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.models.config import ATTENTION_HEADS, ATTENTION_KEY_RATIO
from jax_stn_icnn.models.layers import Conv


class SelfAttention(nn.Module):
    """Adds to each pixel a weighted mean of all pixels.

    Attributes:
        dtype: Type of the computation; parameters and the softmax are float32.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps features to features of the same shape, (batch, channels, height, width).

        Raises:
            ValueError: The channels are not a multiple of the heads times the key ratio.
        """
        check_shape("x", x, ("batch", "channels", "height", "width"))
        batch, channels, height, width = x.shape
        multiple = ATTENTION_HEADS * ATTENTION_KEY_RATIO
        if channels % multiple:
            raise ValueError(f"x has {channels} channels, but must have a multiple of {multiple}")

        def project(name: str, features: int) -> jax.Array:
            out = Conv(features, 1, self.dtype, name=name)(x)
            shape = batch, ATTENTION_HEADS, features // ATTENTION_HEADS, height * width
            return out.reshape(shape).swapaxes(2, 3)

        query = project("query", channels // ATTENTION_KEY_RATIO)
        key = project("key", channels // ATTENTION_KEY_RATIO)
        similarity = jnp.einsum("bhqc,bhkc->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = nn.softmax(similarity / query.shape[-1] ** 0.5).astype(self.dtype)
        mean = jnp.einsum("bhqk,bhkc->bhcq", weights, project("value", channels))
        share = self.param("share", nn.initializers.zeros, (1,))
        return x + (share * mean.reshape(x.shape)).astype(x.dtype)
