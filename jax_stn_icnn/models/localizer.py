"""Localizers: from the coarse segmentation to thetas (section 2.3 of the paper).

All take the coarse softmax of background and the part classes, (batch, height, width, 1 + part
classes), and return thetas (batch, parts, 2, 3) whose entries outside (sx, tx, sy, ty) are zero.
`centroid_theta` is the cropper that they replaced.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.geometry import (
    COARSE_SIZE,
    Size,
    Sizes,
    compose_theta,
    make_theta,
    part_centres,
    part_sizes,
    pixel_to_unit,
    theta_from_centres,
    unit_to_pixel,
)
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.layers import BlockBatchNorm, Conv, batch_norm
from jax_stn_icnn.ops import space_to_depth
from jax_stn_icnn.ops.platform import current_implementations
from jax_stn_icnn.ops.pooling import max_pool_2x2

# The padding of PyTorch's `padding=1`; Flax's SAME pads (0, 1) at stride 2 and an even size.
PAD_1 = ((1, 1), (1, 1))
# Accelerators may round the inputs of a product to bfloat16. In a product that returns coordinates,
# that is an error of several pixels.
EXACT = jax.lax.Precision.HIGHEST
# Channels of each pair of convolutions of the paper's localizer; its own are not published.
VGG9_WIDTHS = (16, 32, 64, 64)


class _Localizer(nn.Module):
    """What the localizers share.

    Attributes:
        config: Options of the model: the anatomy, whose parts get a theta and whose part classes
            the input holds beside background, and the type of the computation. Parameters,
            statistics and thetas are float32.
        axis_name: Name of a mapped axis over which batch statistics are averaged.
    """

    config: ModelConfig = ModelConfig()
    axis_name: str | None = None

    @property
    def num_parts(self) -> int:
        """Number of thetas."""
        return self.config.anatomy.num_parts

    @property
    def dtype(self) -> jnp.dtype:
        """Type of the computation."""
        return jnp.dtype(self.config.dtype)

    def check_input(self, probs: jax.Array, height: Any = "height", width: Any = "width") -> None:
        """Raises ValueError unless `probs` are (batch, height, width, 1 + part classes)."""
        num_classes = 1 + len(self.config.anatomy.part_class_ids)
        check_shape("probs", probs, ("batch", height, width, num_classes))


class SmallLocalizer(_Localizer):
    """The original code's default: fifteen convolutions of 6 channels, down to a 2 x 3 map."""

    @nn.compact
    def __call__(self, probs: jax.Array, train: bool) -> jax.Array:
        """Returns the thetas of a coarse segmentation.

        Args:
            probs: Softmax over background and the part classes, (batch, 128, 128, 1 + part
                classes).
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            Thetas patch -> frame, float32 (batch, parts, 2, 3), all entries in -1..1.

        Raises:
            ValueError: The shape does not match.
        """
        self.check_input(probs, *COARSE_SIZE)
        conv = partial(nn.Conv, self.num_parts, padding=PAD_1, dtype=self.dtype)
        norm = partial(batch_norm, train, self.axis_name, self.dtype)
        x = probs.astype(self.dtype)
        for i in range(10):  # 128 -> 4, halved by every other convolution
            x = norm(f"norm_{i}")(conv((3, 3), strides=2 - i % 2, name=f"conv_{i}")(x))
            # The original has no activation in front of the uneven convolution.
            x = nn.relu(x) if i < 9 else x
        # 4 x 4 -> 2 x 3. Padded explicitly: XLA aborts on a CPU while it compiles the gradient of
        # this kernel with padding (a fatal check in its algebraic simplifier, jaxlib 0.10.2).
        x = jnp.pad(x, ((0, 0), *PAD_1, (0, 0)))
        x = conv((3, 2), strides=2, padding="VALID", name="conv_10")(x)
        x = nn.relu(norm("norm_10")(x))
        for i in range(11, 14):
            x = nn.relu(norm(f"norm_{i}")(conv((3, 3), name=f"conv_{i}")(x)))
        x = conv((3, 3), precision=EXACT, name="conv_14")(x)
        x = nn.tanh(x.astype(jnp.float32))
        return _only_scale_and_shift(jnp.moveaxis(x, -1, 1))


class VGG9Localizer(_Localizer):
    """The paper's: eight convolutions reduced from VGG16 and one fully connected layer.

    Neither the paper's widths nor its way of reading the last map are known. Here a spatial softmax
    (Finn et al., 2016) returns the mean position of each channel of the map, and the fully
    connected layer weights these positions. Flattened maps instead, with the same training, put the
    windows three times as far off: that layer would have 8,192 inputs.
    """

    @nn.compact
    def __call__(self, probs: jax.Array, train: bool) -> jax.Array:
        """Returns the thetas of a coarse segmentation.

        Args:
            probs: Softmax over background and the part classes, (batch, height, width, 1 + part
                classes); sizes divisible by 8.
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            Thetas patch -> frame, float32 (batch, parts, 2, 3).

        Raises:
            ValueError: The shape does not match.
        """
        self.check_input(probs)
        in_blocks = current_implementations().space_to_depth
        maps = (self._maps_in_blocks if in_blocks else self._maps)(probs.astype(self.dtype), train)
        x = _mean_positions(maps.astype(jnp.float32))
        x = nn.Dense(self.num_parts * 4, precision=EXACT, name="dense")(x).reshape(
            -1, self.num_parts, 4
        )
        return make_theta(*jnp.moveaxis(x, -1, 0))

    def _maps(self, x: jax.Array, train: bool) -> jax.Array:
        last = 2 * len(VGG9_WIDTHS) - 1
        x = jnp.moveaxis(x, -1, 1)
        for i in range(last + 1):
            if i > 0 and i % 2 == 0:
                x = max_pool_2x2(x)
            x = self._conv(i)(x)
            if i < last:
                norm = batch_norm(train, self.axis_name, self.dtype, f"norm_{i}", axis=1)
                x = nn.relu(norm(x))
        return jnp.moveaxis(x, 1, -1)

    def _maps_in_blocks(self, probs: jax.Array, train: bool) -> jax.Array:
        """Returns the same, computed in blocks of 4 x 4 pixels, 2 x 2 after a pool, then 1."""
        last = 2 * len(VGG9_WIDTHS) - 1
        x = space_to_depth.to_blocks(probs, (4, 4))
        for i in range(last + 1):
            if i > 0 and i % 2 == 0:
                block = (max(1, x.block[0] // 2),) * 2
                x = space_to_depth.max_pool(x, block, offsets=(0, 1))
            x = self._conv(i)(x)
            if i < last:
                x = BlockBatchNorm(train, self.axis_name, self.dtype, name=f"norm_{i}")(x)
                x = x.of(nn.relu(x.blocks))
        return space_to_depth.from_blocks(x)

    def _conv(self, i: int) -> Conv:
        return Conv(VGG9_WIDTHS[i // 2], 3, self.dtype, use_bias=False, name=f"conv_{i}")


def _mean_positions(maps: jax.Array) -> jax.Array:
    """Returns each channel's mean position, (batch, 2 * channels) in -1..1.

    Args:
        maps: (batch, height, width, channels); their softmax over the pixels is the weight.
    """
    weight = nn.softmax(maps, axis=(1, 2))
    x = jnp.linspace(-1.0, 1.0, maps.shape[2])
    y = jnp.linspace(-1.0, 1.0, maps.shape[1])
    return jnp.concatenate(
        [
            jnp.einsum("bhwc,w->bc", weight, x, precision=EXACT),
            jnp.einsum("bhwc,h->bc", weight, y, precision=EXACT),
        ],
        axis=-1,
    )


class BasicBlock(nn.Module):
    """ResNet's block of two 3 x 3 convolutions and a shortcut.

    Attributes:
        features: Number of output channels.
        stride: Stride of the first convolution and of the shortcut.
        axis_name: Name of a mapped axis over which batch statistics are averaged.
        dtype: Type of the computation.
    """

    features: int
    stride: int
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps features to features, reduced by the stride.

        Args:
            x: (batch, height, width, channels); with stride 1, `features` channels.
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            (batch, ceil(height / stride), ceil(width / stride), features).
        """
        conv = partial(nn.Conv, self.features, use_bias=False, dtype=self.dtype)
        norm = partial(batch_norm, train, self.axis_name, self.dtype)
        shortcut = x
        x = conv((3, 3), strides=self.stride, padding=PAD_1, name="conv_1")(x)
        x = nn.relu(norm("norm_1")(x))
        x = norm("norm_2")(conv((3, 3), padding=PAD_1, name="conv_2")(x))
        if self.stride != 1:
            shortcut = conv((1, 1), strides=self.stride, padding=((0, 0), (0, 0)), name="shortcut")(
                shortcut
            )
            shortcut = norm("shortcut_norm")(shortcut)
        return nn.relu(x + shortcut)


class ResNet18Localizer(_Localizer):
    """ResNet-18 with a 9-channel input and 36 outputs, as in the released checkpoints."""

    @nn.compact
    def __call__(self, probs: jax.Array, train: bool) -> jax.Array:
        """Returns the thetas of a coarse segmentation.

        Args:
            probs: Softmax over background and the part classes, (batch, height, width, 1 + part
                classes).
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            Thetas patch -> frame, float32 (batch, parts, 2, 3).

        Raises:
            ValueError: The shape does not match.
        """
        self.check_input(probs)
        x = nn.Conv(
            64,
            (7, 7),
            strides=2,
            padding=((3, 3), (3, 3)),
            use_bias=False,
            dtype=self.dtype,
            name="conv",
        )(probs.astype(self.dtype))
        x = nn.relu(batch_norm(train, self.axis_name, self.dtype, "norm")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=PAD_1)
        for layer, features in enumerate((64, 128, 256, 512)):
            for block in (0, 1):
                x = BasicBlock(
                    features,
                    2 if layer > 0 and block == 0 else 1,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"layer_{layer}_block_{block}",
                )(x, train)
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        x = nn.Dense(self.num_parts * 6, precision=EXACT, name="dense")(x)
        return _only_scale_and_shift(x.reshape(-1, self.num_parts, 2, 3))


def _only_scale_and_shift(theta: jax.Array) -> jax.Array:
    """Returns thetas with the entries set to zero that eq. 15 of the paper keeps at zero."""
    return theta * jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])


LOCALIZERS: dict[str, type[_Localizer]] = {
    "vgg9": VGG9Localizer,
    "small": SmallLocalizer,
    "resnet18": ResNet18Localizer,
}


def localizer_input(probs: jax.Array, anatomy: Anatomy) -> jax.Array:
    """Returns the coarse probabilities with all global classes summed into background.

    One localizer then serves all anatomies with the same parts; for the paper's nine classes this
    is the identity.

    Args:
        probs: Softmax over the classes, (batch, height, width, classes).
        anatomy: The classes.

    Returns:
        Background and the part classes, (batch, height, width, 1 + part classes).
    """
    if len(anatomy.global_ids) == 1:
        return probs
    # A product: an index array would be a gather, which is slow on a TPU.
    selection = np.zeros((anatomy.num_classes, 1 + len(anatomy.part_class_ids)), np.float32)
    selection[list(anatomy.global_ids), 0] = 1
    selection[list(anatomy.part_class_ids), np.arange(len(anatomy.part_class_ids)) + 1] = 1
    return jnp.einsum("bhwc,cp->bhwp", probs, selection, precision=EXACT)


def centroid_theta(
    probs: jax.Array,
    region: jax.Array,
    frame_size: Size,
    sizes: Sizes,
    anatomy: Anatomy = NINE,
) -> jax.Array:
    """Returns windows around the parts' centres in the coarse segmentation, without a localizer.

    The cropper that STN replaced: the centre of each part is scaled to the frame and rounded to a
    whole pixel. It has no gradient. The window of a part that is absent from the coarse
    segmentation lies in the middle of the picture.

    Args:
        probs: Coarse scores of the classes, (batch, height, width, classes).
        region: Thetas of the picture's rectangle in the frame, (batch, 2, 3).
        frame_size: (height, width) of the frame.
        sizes: (height, width) of all patches, or one for each part.
        anatomy: The classes and parts.

    Returns:
        Thetas (batch, parts, 2, 3).

    Raises:
        ValueError: Shapes do not match.
    """
    check_shape("probs", probs, ("batch", "height", "width", anatomy.num_classes))
    check_shape("region", region, ("batch", 2, 3))
    label_map = jnp.argmax(jax.lax.stop_gradient(probs), axis=-1).astype(jnp.int32)
    centres = part_centres(label_map, anatomy).yx
    x = pixel_to_unit(centres[..., 1], probs.shape[2])
    y = pixel_to_unit(centres[..., 0], probs.shape[1])
    zero = jnp.zeros_like(x)
    in_frame = compose_theta(region[:, None], make_theta(zero, zero, x, y))

    # Whole pixels of the frame, the centres of windows of the patches' size.
    height, width = frame_size
    centre_x = jnp.round(unit_to_pixel(in_frame[..., 0, 2], width))
    centre_y = jnp.round(unit_to_pixel(in_frame[..., 1, 2], height))
    sizes = part_sizes(sizes, anatomy.num_parts)
    return theta_from_centres(jnp.stack([centre_y, centre_x], axis=-1), frame_size, sizes)
