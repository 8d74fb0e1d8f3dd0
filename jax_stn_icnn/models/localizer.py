"""Localizers: from the rough mask to six thetas (section 2.3 of the paper, localization network).

All take the coarse softmax (batch, height, width, 1 + classes of parts) and return thetas (batch,
parts, 2, 3) whose entries outside (sx, tx, sy, ty) are zero. `centroid_theta` is the cropper that
they replaced.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.geometry import (
    COARSE_SIZE,
    Size,
    Sizes,
    compose,
    make_theta,
    part_centres,
    part_sizes,
    pixel_to_unit,
    theta_from_centres,
    unit_to_pixel,
)
from jax_stn_icnn.models.conv import Conv
from jax_stn_icnn.models.norm import BlockBatchNorm, batch_norm
from jax_stn_icnn.ops.space_to_depth import fold, folds, max_pool, unfold

# The padding of PyTorch's `padding=1`; Flax's SAME pads (0, 1) where stride 2 meets an even size.
PAD_1 = ((1, 1), (1, 1))


class SmallLocalizer(nn.Module):
    """The original code's default: fifteen convolutions of 6 channels, down to a 2 x 3 map.

    Attributes:
        anatomy: whose parts get a theta, and whose parts' classes the mask holds beside
            background.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation; parameters, statistics and thetas stay float32.
    """

    anatomy: Anatomy = NINE
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, mask: jax.Array, train: bool) -> jax.Array:
        """Thetas for softmax masks.

        Args:
            mask: softmax over background and the parts' classes, (batch, 128, 128,
                1 + part_class_ids classes).
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            The windows, patch -> frame, float32 (batch, parts, 2, 3), all entries in -1..1.

        Raises:
            ValueError: the shape does not fit.
        """
        check_shape("mask", mask, ("batch", *COARSE_SIZE, 1 + len(self.anatomy.part_class_ids)))
        conv = partial(nn.Conv, self.anatomy.num_parts, padding=PAD_1, dtype=self.dtype)
        norm = partial(batch_norm, train, self.axis_name, self.dtype)
        x = mask.astype(self.dtype)
        for i in range(10):  # 128 -> 4, halved by every other convolution
            x = norm(f"norm_{i}")(conv((3, 3), strides=2 - i % 2, name=f"conv_{i}")(x))
            # The original has no activation in front of the uneven convolution.
            x = nn.relu(x) if i < 9 else x
        # 4 x 4 -> 2 x 3. Padded by hand: XLA aborts on CPU while it compiles the gradient of this
        # kernel with padding (a fatal check in its algebraic simplifier, jaxlib 0.10.2).
        x = jnp.pad(x, ((0, 0), *PAD_1, (0, 0)))
        x = conv((3, 2), strides=2, padding="VALID", name="conv_10")(x)
        x = nn.relu(norm("norm_10")(x))
        for i in range(11, 14):
            x = nn.relu(norm(f"norm_{i}")(conv((3, 3), name=f"conv_{i}")(x)))
        x = nn.tanh(conv((3, 3), name="conv_14")(x).astype(jnp.float32))
        return _only_scale_and_shift(jnp.moveaxis(x, -1, 1))


class VGG9Localizer(nn.Module):
    """The paper's: eight convolutions cut down from VGG16 and one fully connected layer.

    The paper's widths are lost, and so is how the last map is read. Here each channel of it says
    where something is, by the mean position under a softmax over its pixels (the spatial softmax of
    Finn et al., 2016), and the fully connected layer weighs these positions. Flattened maps
    instead, with the same training, put the windows three times as far off: 8,192 inputs have to be
    learnt apart, where a position is the right kind of answer from the start.

    Attributes:
        anatomy: whose parts get a theta, and whose parts' classes the mask holds beside
            background.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation; parameters, statistics and thetas stay float32.
        widths: channels of each pair of convolutions.
        platform: what it is compiled for, as JAX calls it; None is JAX's default. It changes how
            the result is computed, not what it is.
    """

    anatomy: Anatomy = NINE
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    widths: tuple[int, ...] = (16, 32, 64, 64)
    platform: str | None = None

    @nn.compact
    def __call__(self, mask: jax.Array, train: bool) -> jax.Array:
        """Thetas for softmax masks.

        Args:
            mask: softmax over background and the parts' classes, (batch, height, width,
                1 + part_class_ids classes); both sizes halve evenly at each pool.
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            The windows, patch -> frame, float32 (batch, parts, 2, 3).

        Raises:
            ValueError: the shape does not fit.
        """
        check_shape(
            "mask", mask, ("batch", "height", "width", 1 + len(self.anatomy.part_class_ids))
        )
        maps = self._of_blocks if folds(self.platform) else self._of_pixels
        x = _mean_positions(maps(mask.astype(self.dtype), train).astype(jnp.float32))
        x = nn.Dense(self.anatomy.num_parts * 4, name="dense")(x).reshape(
            -1, self.anatomy.num_parts, 4
        )
        return make_theta(*jnp.moveaxis(x, -1, 0))

    def _of_pixels(self, x: jax.Array, train: bool) -> jax.Array:
        last = 2 * len(self.widths) - 1
        x = jnp.moveaxis(x, -1, 1)
        for i in range(last + 1):
            if i > 0 and i % 2 == 0:
                x = _max_of_two(_max_of_two(x, axis=3), axis=2)
            x = Conv(self.widths[i // 2], 3, self.dtype, use_bias=False, name=f"conv_{i}")(x)
            if i < last:
                norm = batch_norm(train, self.axis_name, self.dtype, f"norm_{i}", axis=1)
                x = nn.relu(norm(x))
        return jnp.moveaxis(x, 1, -1)

    def _of_blocks(self, picture: jax.Array, train: bool) -> jax.Array:
        """The same of a folded picture: in blocks of 4 x 4 pixels, 2 x 2 after a pool, then 1."""
        last = 2 * len(self.widths) - 1
        x = fold(picture, (4, 4))
        for i in range(last + 1):
            if i > 0 and i % 2 == 0:
                x = max_pool(x, (max(1, x.block[0] // 2),) * 2, offsets=(0, 1))
            x = Conv(self.widths[i // 2], 3, self.dtype, use_bias=False, name=f"conv_{i}")(x)
            if i < last:
                x = BlockBatchNorm(train, self.axis_name, self.dtype, name=f"norm_{i}")(x)
                x = x.of(nn.relu(x.blocks))
        return unfold(x)


def _max_of_two(x: jax.Array, axis: int) -> jax.Array:
    """2 x 2 max pool along one axis; values and gradient as `nn.max_pool`'s, faster on CPU."""
    even, odd = (lax.slice_in_dim(x, first, None, stride=2, axis=axis) for first in (0, 1))
    return jnp.where(even >= odd, even, odd)


def _mean_positions(maps: jax.Array) -> jax.Array:
    """Where each channel is high: (batch, 2 * channels) in -1..1 for (batch, height, width, ..)."""
    weight = nn.softmax(maps, axis=(1, 2))
    x = jnp.linspace(-1.0, 1.0, maps.shape[2])
    y = jnp.linspace(-1.0, 1.0, maps.shape[1])
    return jnp.concatenate(
        [jnp.einsum("bhwc,w->bc", weight, x), jnp.einsum("bhwc,h->bc", weight, y)], axis=-1
    )


class BasicBlock(nn.Module):
    """ResNet's block of two 3 x 3 convolutions and a shortcut.

    Attributes:
        features: output channels.
        stride: of the first convolution and the shortcut.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation.
    """

    features: int
    stride: int
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps features to features, shrunk by the stride.

        Args:
            x: (batch, height, width, channels); with stride 1 as many channels as `features`.
            train: whether BatchNorm uses (and records) the statistics of this batch.

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


class ResNet18Localizer(nn.Module):
    """ResNet-18 with a 9-channel first convolution and 36 outputs: the released checkpoints' one.

    Attributes:
        anatomy: whose parts get a theta, and whose parts' classes the mask holds beside
            background.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation; parameters, statistics and thetas stay float32.
    """

    anatomy: Anatomy = NINE
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, mask: jax.Array, train: bool) -> jax.Array:
        """Thetas for softmax masks.

        Args:
            mask: softmax over background and the parts' classes, (batch, height, width,
                1 + part_class_ids classes).
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            The windows, patch -> frame, float32 (batch, parts, 2, 3).

        Raises:
            ValueError: the shape does not fit.
        """
        check_shape(
            "mask", mask, ("batch", "height", "width", 1 + len(self.anatomy.part_class_ids))
        )
        x = nn.Conv(
            64,
            (7, 7),
            strides=2,
            padding=((3, 3), (3, 3)),
            use_bias=False,
            dtype=self.dtype,
            name="conv",
        )(mask.astype(self.dtype))
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
        x = nn.Dense(self.anatomy.num_parts * 6, name="dense")(x)
        return _only_scale_and_shift(x.reshape(-1, self.anatomy.num_parts, 2, 3))


def _only_scale_and_shift(theta: jax.Array) -> jax.Array:
    """Zeroes what eq. 15 of the paper keeps at zero."""
    return theta * jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])


LOCALIZERS: dict[str, type[nn.Module]] = {
    "vgg9": VGG9Localizer,
    "small": SmallLocalizer,
    "resnet18": ResNet18Localizer,
}


def centroid_theta(
    mask: jax.Array,
    region: jax.Array,
    frame_size: Size,
    patch_size: Sizes,
    anatomy: Anatomy = NINE,
) -> jax.Array:
    """The cropper that STN replaced: windows around the parts' centres in the rough mask.

    The centre of each part is scaled to the frame and rounded to a whole pixel; nothing here has a
    gradient. A part that the mask lacks gets the middle of the picture.

    Args:
        mask: coarse scores of the classes, (batch, height, width, classes).
        region: where the picture lies in the frame, (batch, 2, 3).
        frame_size: (height, width) of the frame.
        patch_size: (height, width) of the patches, or one for each part.
        anatomy: what the face consists of.

    Returns:
        Thetas (batch, parts, 2, 3).
    """
    check_shape("mask", mask, ("batch", "height", "width", anatomy.num_classes))
    check_shape("region", region, ("batch", 2, 3))
    mask = jax.lax.stop_gradient(mask)
    centres = part_centres(jnp.argmax(mask, axis=-1).astype(jnp.int32), anatomy).yx
    x = pixel_to_unit(centres[..., 1], mask.shape[2])
    y = pixel_to_unit(centres[..., 0], mask.shape[1])
    in_frame = compose(region[:, None], make_theta(jnp.zeros_like(x), jnp.zeros_like(y), x, y))

    # Whole pixels of the frame, where windows of the patches' own size stand.
    height, width = frame_size
    centre_x = jnp.round(unit_to_pixel(in_frame[..., 0, 2], width))
    centre_y = jnp.round(unit_to_pixel(in_frame[..., 1, 2], height))
    sizes = part_sizes(patch_size, anatomy.num_parts)
    return theta_from_centres(jnp.stack([centre_y, centre_x], axis=-1), frame_size, sizes)
