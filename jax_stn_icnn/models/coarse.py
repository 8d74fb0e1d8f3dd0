"""The coarse networks of the full face: the output layers that they have in common.

Such a network computes features of blocks of 2 x 2 pixels of the coarse segmentation. From them,
depth-to-space returns the logits of all classes at the size of the coarse segmentation (128 x 128)
and, if `coarse_stride` is above 1, those of the global classes at the size of the input, smoothed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.models.bridge import FEATURES
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.layers import Conv, ConvNorm
from jax_stn_icnn.ops.convolution import convolve
from jax_stn_icnn.ops.platform import current_implementations
from jax_stn_icnn.ops.smoothing import smooth, smooth_blocks
from jax_stn_icnn.ops.space_to_depth import depth_to_space, space_to_depth

BLOCK = 2  # side of the blocks of the coarse segmentation that are one pixel of the features
HEAD = 64  # channels from which all logits are computed


class CoarseOutput(NamedTuple):
    """Output of a coarse network.

    Attributes:
        logits: Logits of all classes, (batch, coarse_size, coarse_size, classes).
        global_logits: Logits of the global classes, channels first, (batch, global classes,
            *coarse_image_size); None if background is the only one.
        edge_logits: Logits of a pixel lying on an edge between classes, (batch, coarse_size,
            coarse_size); None without an edge head.
        features: Features for a bridge, channels first, (batch, features, coarse_size,
            coarse_size); None without a bridge.
    """

    logits: jax.Array
    global_logits: jax.Array | None
    edge_logits: jax.Array | None
    features: jax.Array | None


class CoarseNetwork(nn.Module):
    """Predicts every class coarsely, and the global classes finely, from a subclass's features.

    Attributes:
        config: Options of the model.
        axis_name: Name of a mapped axis over which batch statistics are averaged.
    """

    config: ModelConfig
    axis_name: str | None = None

    @property
    def dtype(self) -> jnp.dtype:
        """Type of the computation; parameters, statistics and logits are float32."""
        return jnp.dtype(self.config.dtype)

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> CoarseOutput:
        """Returns the logits of every pixel.

        Args:
            image: Floats in 0..1, (batch, height, width, 3), sizes multiples of
                `2 * coarse_stride`.
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            Logits, float32; the coarse segmentation has the size of the image divided by
            `coarse_stride`.

        Raises:
            ValueError: The shape does not match.
        """
        config = self.config
        check_shape("image", image, ("batch", "height", "width", 3))
        side = BLOCK * config.coarse_stride
        if any(length % side for length in image.shape[1:3]):
            raise ValueError(f"image has shape {image.shape}, but must be divisible by {side}")
        blocks = space_to_depth(image.astype(self.dtype), side)
        x = jnp.concatenate([self._features(image, blocks, train), blocks], axis=1)
        x = self._conv_norm(HEAD, "head")(x, train)
        # On a TPU it is faster to repeat and add up weights than logits.
        merge_weights = current_implementations().space_to_depth
        logits, global_logits = (self._logits_by_weights if merge_weights else self._logits)(x)
        edge_logits = features = None
        if config.edge_head:
            edges = Conv(BLOCK**2, 1, self.dtype, name="edges")(x)
            edge_logits = depth_to_space(edges, BLOCK)[:, 0].astype(jnp.float32)
        if config.bridge:
            bridge = Conv(FEATURES * BLOCK**2, 1, self.dtype, name="bridge")(x)
            features = depth_to_space(bridge, BLOCK)
        return CoarseOutput(logits.transpose(0, 2, 3, 1), global_logits, edge_logits, features)

    def _logits(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the logits of all classes, and of the global classes, channels first.

        The latter are smoothed if they are finer.
        """
        anatomy, stride = self.config.anatomy, self.config.coarse_stride
        logits = Conv(anatomy.num_classes * BLOCK**2, 1, self.dtype, name="logits")(x)
        logits = depth_to_space(logits, BLOCK).astype(jnp.float32)
        global_logits = jnp.stack([logits[:, i] for i in anatomy.global_ids], axis=1)
        if stride > 1:
            side = BLOCK * stride
            finer = Conv(len(anatomy.global_ids) * side**2, 1, self.dtype, name="finer")(x)
            repeated = jnp.repeat(jnp.repeat(global_logits, stride, axis=2), stride, axis=3)
            global_logits = smooth(repeated + depth_to_space(finer.astype(jnp.float32), side))
        return logits, global_logits

    def _logits_by_weights(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the same; weights are selected, repeated and added up instead of logits."""
        anatomy, stride = self.config.anatomy, self.config.coarse_stride
        side, count = BLOCK * stride, len(anatomy.global_ids)
        conv = Conv(anatomy.num_classes * BLOCK**2, 1, self.dtype, name="logits")
        weights = conv.weights(x.shape[1])

        def select_global(weights: jax.Array) -> jax.Array:
            blocks = weights.reshape(-1, BLOCK, BLOCK, anatomy.num_classes)
            blocks = jnp.stack([blocks[..., i] for i in anatomy.global_ids], axis=-1)
            repeated = jnp.repeat(jnp.repeat(blocks, stride, axis=1), stride, axis=2)
            return repeated.reshape(*weights.shape[:-1], count * side**2)

        global_weights = jax.tree.map(select_global, weights)
        if stride > 1:
            finer = Conv(count * side**2, 1, self.dtype, name="finer").weights(x.shape[1])
            global_weights = jax.tree.map(jnp.add, global_weights, finer)

        def blocks_of(weights: Any) -> jax.Array:
            kernel, bias = weights
            out = convolve(x, kernel.astype(self.dtype)) + bias[:, None, None]
            return out.astype(self.dtype)

        logits = depth_to_space(blocks_of(weights), BLOCK)
        to_pixels = smooth_blocks if stride > 1 else depth_to_space
        global_logits = to_pixels(blocks_of(global_weights), side)
        return logits.astype(jnp.float32), global_logits.astype(jnp.float32)

    def _features(self, image: jax.Array, blocks: jax.Array, train: bool) -> jax.Array:
        """Returns features of each block.

        Args:
            image: Floats in 0..1, (batch, height, width, 3).
            blocks: The image in blocks, channels first, (batch, 3 * side**2, height / side, width /
                side), side being `BLOCK * coarse_stride`.
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            Channels first, (batch, features, height / side, width / side).
        """
        raise NotImplementedError

    def _conv_norm(self, features: int, name: str) -> ConvNorm:
        return ConvNorm(features, nn.relu, 3, self.axis_name, self.dtype, name=name)
