"""EfficientNet-Lite0 without its classifier: the encoder that has weights trained on ImageNet.

Tan and Le, EfficientNet (2019), in the variant for mobile devices that Google published in 2020:
ReLU6, and no squeeze-and-excitation. Convolutions are padded as TensorFlow's SAME. Channels first.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jax_stn_icnn.models.layers import Conv, ExistingParameters, batch_norm
from jax_stn_icnn.ops.depthwise import convolve_depthwise
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
        x = ((image - MEAN) * SCALE).astype(self.dtype).transpose(0, 3, 1, 2)
        kernel = self.param("stem", nn.initializers.lecun_normal(), (3, 3, 3, STEM))
        x = convolve_halved(x, kernel.astype(self.dtype))
        x = batch_norm(train, self.axis_name, self.dtype, "stem_norm", 1, EPSILON)(x)
        x = relu6(x)
        features, count = [], 0
        for i, stage in enumerate(STAGES):
            for j in range(stage.blocks):
                form = stage if j == 0 else stage._replace(stride=1)
                x = Block(form, self.axis_name, self.dtype, name=f"block_{count}")(x, train)
                count += 1
            if i in LAST_AT_STRIDE:
                features.append(x)
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
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (batch, channels, height, width) to (batch, features, height / s, width / s)."""

        def norm(name: str) -> nn.BatchNorm:
            return batch_norm(train, self.axis_name, self.dtype, name, 1, EPSILON)

        form, y = self.form, x
        if form.expansion > 1:
            expand = Conv(form.expansion * x.shape[1], 1, self.dtype, False, name="expand")
            y = relu6(norm("expand_norm")(expand(y)))
        shape = form.kernel, form.kernel, y.shape[1]
        kernel = self.param("depthwise", nn.initializers.lecun_normal((0, 1), ()), shape)
        y = convolve_depthwise(y, kernel.astype(self.dtype), form.stride)
        y = relu6(norm("depthwise_norm")(y))
        project = Conv(form.features, 1, self.dtype, False, name="project")
        y = norm("project_norm")(project(y))
        return y + x if y.shape == x.shape else y
