"""EfficientNet-Lite0 without its classifier: the encoder that has weights trained on ImageNet.

Tan and Le, EfficientNet (2019), in the variant for mobile devices that Google published in 2020:
ReLU6, and no squeeze-and-excitation. Convolutions are padded as TensorFlow's SAME. Channels first;
on a TPU the first features, few channels at many pixels, are BlockFeatures.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jax_stn_icnn.models.layers import (
    Conv,
    ExistingParameters,
    activate,
    normalize,
    num_channels,
)
from jax_stn_icnn.ops.depthwise import convolve_depthwise
from jax_stn_icnn.ops.halving import (
    convolve_depthwise_blocks,
    convolve_depthwise_halved,
    convolve_halved_into_blocks,
)
from jax_stn_icnn.ops.platform import current_implementations
from jax_stn_icnn.ops.space_to_depth import BlockFeatures, Features, from_blocks
from jax_stn_icnn.ops.strided import convolve_halved

EPSILON = 1e-3  # of BatchNorm
# The range that images are scaled to, as during the training on ImageNet: (255 x - 127) / 128.
MEAN, SCALE = 127 / 255, 255 / 128
STEM = 32  # channels of the first convolution


class Stage(NamedTuple):
    """Consecutive blocks of equal form, the first of which has the stride.

    Attributes:
        blocks: Number of blocks.
        kernel: Side of the depthwise kernels.
        stride: Stride of the first block.
        expansion: Channels within a block over its input's.
        features: Channels of the output.
    """

    blocks: int
    kernel: int
    stride: int
    expansion: int
    features: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
# Features are returned after these stages, the last at each of the strides 2, 4, 8, 16 and 32.
LAST_AT_STRIDE = (0, 1, 2, 4, 6)


class EfficientNetLite0(ExistingParameters, nn.Module):
    """Features of an image at five scales.

    Attributes:
        axis_name: Name of a mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """Returns the features at strides 2, 4, 8, 16 and 32, of 16, 24, 40, 112 and 320 channels.

        Args:
            image: Floats in 0..1, (batch, height, width, 3), both sizes even.
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            Channels first, (batch, channels, ceil(height / stride), ceil(width / stride)).
        """
        image = ((image - MEAN) * SCALE).astype(self.dtype)
        kernel = self.param("stem", nn.initializers.lecun_normal(), (3, 3, 3, STEM))
        fits_blocks = not any(length % 4 for length in image.shape[1:3])
        x: Features
        if current_implementations().space_to_depth and fits_blocks:
            x = convolve_halved_into_blocks(image, kernel)
        else:
            x = convolve_halved(image.transpose(0, 3, 1, 2), kernel.astype(self.dtype))
        x = normalize(x, train, self.axis_name, self.dtype, "stem_norm", EPSILON)
        x = activate(x, relu6)
        features, count = [], 0
        for i, stage in enumerate(STAGES):
            for j in range(stage.blocks):
                form = stage if j == 0 else stage._replace(stride=1)
                x = Block(form, self.axis_name, self.dtype, name=f"block_{count}")(x, train)
                count += 1
            if i in LAST_AT_STRIDE:
                is_in_blocks = isinstance(x, BlockFeatures)
                features.append(from_blocks(x).transpose(0, 3, 1, 2) if is_in_blocks else x)
        return tuple(features)


def relu6(x: jax.Array) -> jax.Array:
    """Returns values clamped to 0..6, as one operation, which ONNX runtimes fuse."""
    return lax.clamp(jnp.zeros((), x.dtype), x, jnp.full((), 6, x.dtype))


class Block(ExistingParameters, nn.Module):
    """An inverted residual: expansion, depthwise convolution, projection (Sandler et al., 2018).

    Attributes:
        form: Stride, kernel and channels.
        axis_name: Name of a mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    form: Stage
    axis_name: str | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Features, train: bool) -> Features:
        """Maps (batch, channels, height, width) to (batch, features, height / s, width / s).

        Blocks of 2 x 2 pixels are mapped to blocks, or with stride 2 to such an array.
        """

        def norm(y: Features, name: str) -> Features:
            return normalize(y, train, self.axis_name, self.dtype, name, EPSILON)

        form, y, channels = self.form, x, num_channels(x)
        if form.expansion > 1:
            expand = Conv(form.expansion * channels, 1, self.dtype, False, name="expand")
            y = activate(norm(expand(y), "expand_norm"), relu6)
        y = activate(norm(self._depthwise(y), "depthwise_norm"), relu6)
        project = Conv(form.features, 1, self.dtype, False, name="project")
        y = norm(project(y), "project_norm")
        return y + x if form.stride == 1 and form.features == channels else y

    def _depthwise(self, x: Features) -> Features:
        shape = self.form.kernel, self.form.kernel, num_channels(x)
        kernel = self.param("depthwise", nn.initializers.lecun_normal((0, 1), ()), shape)
        if not isinstance(x, BlockFeatures):
            return convolve_depthwise(x, kernel.astype(self.dtype), self.form.stride)
        if self.form.stride == 1:
            return convolve_depthwise_blocks(x, kernel)
        return convolve_depthwise_halved(x, kernel)
