"""Cutting: patches of images and of labels by theta, and pictures resized by the same rule."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_labels, check_same_batch, check_shape
from jax_stn_icnn.geometry import Size, Sizes, is_single_size, part_sizes
from jax_stn_icnn.ops import gather, matmul
from jax_stn_icnn.ops.grid import patch_points
from jax_stn_icnn.ops.platform import choose

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def affine_grid(theta: jax.Array, size: Size) -> jax.Array:
    """Where each pixel of a patch lies in the frame (eq. 14 of the paper).

    Args:
        theta: matrices patch -> frame, shape (..., 2, 3).
        size: (height, width) of the patch.

    Returns:
        (x, y) in unit coordinates of the frame, shape (..., height, width, 2).

    Raises:
        ValueError: theta does not end in (2, 3).
    """
    check_shape("theta", theta, (..., 2, 3))
    return jnp.stack(patch_points(theta, size), axis=-1)


def crop_bilinear(
    image: jax.Array, theta: jax.Array, size: Size, *, axis_aligned: bool = False
) -> jax.Array:
    """Cuts patches by bilinear sampling; differentiable in the image and in theta.

    A coordinate closer to a whole pixel than float rounding can tell counts as that pixel, so a
    patch that falls on whole pixels equals the slice of the image to the bit.

    Args:
        image: floats of shape (batch, height, width, channels).
        theta: matrices patch -> image, (batch, 2, 3) or, for several patches of one image,
            (batch, patches, 2, 3).
        size: (height, width) of a patch.
        axis_aligned: whether no window is turned or sheared, as the localizers' are: a TPU then cuts
            them faster, and gives no numbers for one that is.

    Returns:
        Patches of the image's type, (batch, [patches,] *size, channels).

    Raises:
        ValueError: shapes do not fit, or the image is not floating point.
    """
    _check_crop(image, theta)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image must be floating point, not {image.dtype}: convert it to 0..1")
    return _crop(_bilinear, image, theta, tuple(size), axis_aligned)


def crop_nearest(
    image: jax.Array, theta: jax.Array, size: Size, *, axis_aligned: bool = False
) -> jax.Array:
    """Cuts patches by nearest sampling, halves rounded to even: for labels and the inverse.

    Args:
        image: any type, shape (batch, height, width, channels).
        theta: matrices patch -> image, (batch, 2, 3) or (batch, patches, 2, 3); gets no gradient.
        size: (height, width) of a patch.
        axis_aligned: whether no window is turned or sheared: a TPU then cuts them faster, off-diagonal
            entries of theta count as zero, and integers must be below 2**24.

    Returns:
        Patches of the image's type, (batch, [patches,] *size, channels), zero outside the image.

    Raises:
        ValueError: shapes do not fit.
    """
    _check_crop(image, theta)
    return _crop(_nearest, image, jax.lax.stop_gradient(theta), tuple(size), axis_aligned)


def crop_parts(
    image: jax.Array, theta: jax.Array, sizes: Sizes, *, axis_aligned: bool = False
) -> jax.Array | tuple:
    """Cuts each part's patch by `crop_bilinear`.

    Args:
        image: floats of shape (batch, height, width, channels).
        theta: the parts' matrices, (batch, parts, 2, 3).
        sizes: (height, width) of the patches, or one for each part.
        axis_aligned: as for `crop_bilinear`.

    Returns:
        Patches (batch, parts, *size, channels) of one size; otherwise for each part (batch, *size,
        channels).

    Raises:
        ValueError: shapes do not fit, or the image is not floating point.
    """
    if is_single_size(sizes):
        return crop_bilinear(image, theta, part_sizes(sizes, 1)[0], axis_aligned=axis_aligned)
    # Parts of one size in one call.
    each = part_sizes(sizes, theta.shape[1])
    patches: list[jax.Array | None] = [None] * len(each)
    for size in dict.fromkeys(each):
        own = [i for i, other in enumerate(each) if other == size]
        # Slices: indexed by an array, a TPU would look the parts up.
        own_theta = jnp.stack([theta[:, i] for i in own], axis=1)
        cut = crop_bilinear(image, own_theta, size, axis_aligned=axis_aligned)
        for place, i in enumerate(own):
            patches[i] = cut[:, place]
    return tuple(patches)


def crop_part_labels(
    label_map: jax.Array,
    theta: jax.Array,
    size: Sizes,
    anatomy: Anatomy = NINE,
    *,
    axis_aligned: bool = False,
) -> jax.Array | tuple:
    """Cuts each part's labels from a frame's label map.

    Args:
        label_map: class ids, integers of shape (batch, height, width).
        theta: the parts' matrices, (batch, parts, 2, 3).
        size: (height, width) of the patches, or one for each part.
        anatomy: what the face consists of.
        axis_aligned: as for `crop_nearest`.

    Returns:
        int32 (batch, parts, *size), or for each part (batch, *size): 0 background and other parts,
        1, 2, ... the part's own classes.

    Raises:
        ValueError: shapes do not fit, or a label is no class.
    """
    check_shape("theta", theta, ("batch", anatomy.num_parts, 2, 3))
    check_shape("label_map", label_map, ("batch", "height", "width"))
    check_labels("label_map", label_map, anatomy.num_classes)
    sizes = part_sizes(size, anatomy.num_parts)
    patches = []
    for i, part in enumerate(anatomy.parts):
        patch = crop_nearest(
            label_map[..., None], theta[:, i], sizes[i], axis_aligned=axis_aligned
        )[..., 0]
        own = enumerate(anatomy.patch_labels(part))
        patches.append(sum((patch == c).astype(jnp.int32) * label for c, label in own if label))
    return jnp.stack(patches, axis=1) if is_single_size(size) else tuple(patches)


def resize_bilinear(image: jax.Array, size: Size) -> jax.Array:
    """Resizes by bilinear sampling with align_corners: what makes the coarse image.

    Args:
        image: floats of shape (batch, height, width, channels).
        size: (height, width) of the result.

    Returns:
        Images of shape (batch, *size, channels), of the image's type.
    """
    check_shape("image", image, ("batch", "height", "width", "channels"))
    theta = jnp.broadcast_to(jnp.array(IDENTITY, jnp.float32), (image.shape[0], 2, 3))
    return crop_bilinear(image, theta, size, axis_aligned=True)


def enlarge(image: jax.Array, size: Size) -> jax.Array:
    """Resizes as `resize_bilinear`, to its rounding, one axis after the other.

    For a batch of many channels a third of the time within the pipeline, where the compiler would
    fuse the other's look-up into all that reads it.

    Args:
        image: floats of shape (batch, height, width, channels), two pixels a side or more.
        size: (height, width) of the result, two or more.

    Returns:
        Images of shape (batch, *size, channels), of the image's type.
    """
    check_shape("image", image, ("batch", "height", "width", "channels"))
    by_axes = partial(_enlarge_by_axes, size=size)
    return choose(True, partial(resize_bilinear, size=size), by_axes, image)


def _enlarge_by_axes(image: jax.Array, size: Size) -> jax.Array:
    for axis, new in zip((1, 2), size, strict=True):
        old = image.shape[axis]
        pixel = np.arange(new) * (old - 1) / (new - 1)
        first = np.minimum(pixel.astype(int), old - 2)
        share = (pixel - first).reshape([-1 if i == axis else 1 for i in range(4)])
        weight = jnp.asarray(share, image.dtype)
        before, after = (jnp.take(image, first + i, axis=axis) for i in (0, 1))
        image = before * (1 - weight) + after * weight
    return image


def take_labels(label_map: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Some rows and columns of label maps.

    Args:
        label_map: class ids of shape (batch, height, width).
        rows: their numbers, integers (batch, new height), all within the map.
        columns: likewise (batch, new width).

    Returns:
        Label maps (batch, new height, new width), of the input's type.
    """
    check_shape("label_map", label_map, ("batch", "height", "width"))
    check_same_batch(label_map=label_map, rows=rows, columns=columns)

    def by_products(label_map: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
        return jax.vmap(matmul.pick)(label_map[..., None], rows, columns)[..., 0]

    def by_lookups(label_map: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
        batch = jnp.arange(label_map.shape[0])
        return label_map[batch[:, None, None], rows[:, :, None], columns[:, None, :]]

    return choose(True, by_products, by_lookups, label_map, rows, columns)


def _check_crop(image: jax.Array, theta: jax.Array) -> None:
    check_shape("image", image, ("batch", "height", "width", "channels"))
    check_shape("theta", theta, (..., 2, 3))
    if theta.ndim not in (3, 4):
        raise ValueError(f"theta has shape {theta.shape}, but must be (batch, [patches,] 2, 3)")
    check_same_batch(image=image, theta=theta)


@partial(jax.jit, static_argnums=(0, 3, 4))
def _crop(sample, image: jax.Array, theta: jax.Array, size: Size, axis_aligned: bool) -> jax.Array:
    """Samples every patch of every image."""
    several = theta.ndim == 4
    patches = jax.vmap(lambda image, theta: sample(image, theta, size, axis_aligned))(
        image, theta if several else theta[:, None]
    )
    return patches if several else patches[:, 0]


def _nearest(image: jax.Array, theta: jax.Array, size: Size, axis_aligned: bool) -> jax.Array:
    by_products = partial(matmul.nearest, size=size)
    by_lookups = partial(gather.nearest, size=size)
    return choose(axis_aligned, by_products, by_lookups, image, theta)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _bilinear(image: jax.Array, theta: jax.Array, size: Size, axis_aligned: bool) -> jax.Array:
    by_products = partial(matmul.bilinear, size=size)
    by_lookups = partial(gather.bilinear, size=size)
    return choose(axis_aligned, by_products, by_lookups, image, theta)


def _bilinear_forward(image: jax.Array, theta: jax.Array, size: Size, axis_aligned: bool):
    return _bilinear(image, theta, size, axis_aligned), (image, theta)


def _bilinear_backward(size: Size, axis_aligned: bool, saved, cotangent: jax.Array):
    by_products = partial(matmul.bilinear_gradients, size=size)
    by_lookups = partial(gather.bilinear_gradients, size=size)
    return choose(axis_aligned, by_products, by_lookups, *saved, cotangent)


_bilinear.defvjp(_bilinear_forward, _bilinear_backward)
