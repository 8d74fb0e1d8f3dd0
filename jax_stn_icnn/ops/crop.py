"""The sampler: crops patches of images and of label maps by theta."""

from functools import partial

import jax
import jax.numpy as jnp

from jax_stn_icnn.anatomy import NINE, Anatomy, Part
from jax_stn_icnn.checks import check_labels, check_same_batch, check_shape
from jax_stn_icnn.geometry import Size, Sizes, part_sizes
from jax_stn_icnn.label_sets import LabelSets
from jax_stn_icnn.ops import gather, matmul
from jax_stn_icnn.ops.grid import patch_points
from jax_stn_icnn.ops.platform import current_implementations

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def affine_grid(theta: jax.Array, size: Size) -> jax.Array:
    """Returns the position in the frame of each pixel of a patch (eq. 14 of the paper).

    Args:
        theta: Matrices patch -> frame, (..., 2, 3).
        size: (height, width) of the patch.

    Returns:
        (x, y) in unit coordinates of the frame, (..., height, width, 2).

    Raises:
        ValueError: `theta` does not end in (2, 3).
    """
    check_shape("theta", theta, (..., 2, 3))
    return jnp.stack(patch_points(theta, size), axis=-1)


def crop_bilinear(
    image: jax.Array, theta: jax.Array, size: Size, *, axis_aligned: bool = False
) -> jax.Array:
    """Returns patches sampled bilinearly; differentiable in the image and in theta.

    A coordinate closer to a whole pixel than float rounding can tell counts as that pixel, so a
    patch that falls on whole pixels equals the slice of the image to the bit.

    Args:
        image: Floats (batch, height, width, channels).
        theta: Matrices patch -> image, (batch, 2, 3) or, for several patches of one image,
            (batch, patches, 2, 3).
        size: (height, width) of a patch.
        axis_aligned: Whether no window is rotated or sheared, as the localizers' are. A TPU crops
            such windows faster, and returns NaN for others.

    Returns:
        Patches of the image's type, (batch, [patches,] *size, channels), zero outside the image.

    Raises:
        ValueError: Shapes do not match, or the image is not floating point.
    """
    _check_crop(image, theta)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image must be floating point, not {image.dtype}: convert it to 0..1")
    return _crop(_bilinear, image, theta, tuple(size), axis_aligned)


def crop_nearest(
    image: jax.Array, theta: jax.Array, size: Size, *, axis_aligned: bool = False
) -> jax.Array:
    """Returns patches sampled by nearest neighbour, halves rounded to even.

    Args:
        image: Any type, (batch, height, width, channels).
        theta: Matrices patch -> image, (batch, 2, 3) or (batch, patches, 2, 3); gets no gradient.
        size: (height, width) of a patch.
        axis_aligned: Whether no window is rotated or sheared. A TPU crops such windows faster;
            off-diagonal entries of theta then count as zero, and integers must be below 2**24.

    Returns:
        Patches of the image's type, (batch, [patches,] *size, channels), zero outside the image.

    Raises:
        ValueError: Shapes do not match.
    """
    _check_crop(image, theta)
    return _crop(_nearest, image, jax.lax.stop_gradient(theta), tuple(size), axis_aligned)


def crop_parts(
    image: jax.Array, theta: jax.Array, sizes: Sizes, *, axis_aligned: bool = False
) -> tuple[jax.Array, ...]:
    """Returns each part's patch, cropped by `crop_bilinear`.

    Args:
        image: Floats (batch, height, width, channels).
        theta: The parts' matrices, (batch, parts, 2, 3).
        sizes: (height, width) of all patches, or one for each part.
        axis_aligned: As for `crop_bilinear`.

    Returns:
        For each part (batch, *size, channels).

    Raises:
        ValueError: Shapes do not match, or the image is not floating point.
    """
    sizes = part_sizes(sizes, theta.shape[1])
    patches: dict[int, jax.Array] = {}
    for size in dict.fromkeys(sizes):  # Parts of one size in one call.
        members = [i for i, other in enumerate(sizes) if other == size]
        # Slices: an index array would be a gather, which is slow on a TPU.
        own_theta = jnp.stack([theta[:, i] for i in members], axis=1)
        cropped = crop_bilinear(image, own_theta, size, axis_aligned=axis_aligned)
        patches |= {i: cropped[:, place] for place, i in enumerate(members)}
    return tuple(patches[i] for i in range(len(sizes)))


def crop_part_labels(
    label_map: jax.Array,
    theta: jax.Array,
    sizes: Sizes,
    anatomy: Anatomy = NINE,
    label_sets: LabelSets | None = None,
    *,
    axis_aligned: bool = False,
) -> tuple[jax.Array, ...]:
    """Returns each part's labels, cropped from a label map of the frame.

    Args:
        label_map: Labels, integers (batch, height, width).
        theta: The parts' matrices, (batch, parts, 2, 3).
        sizes: (height, width) of all patches, or one for each part.
        anatomy: The classes and parts.
        label_sets: The classes of each label; None if labels are class ids.
        axis_aligned: As for `crop_nearest`.

    Returns:
        For each part int32 (batch, *size): 0 for background and other parts, 1, 2, ... for the
        part's own classes, and the next number where the label leaves this open.

    Raises:
        ValueError: Shapes do not match, or a label is unknown.
    """
    check_shape("theta", theta, ("batch", anatomy.num_parts, 2, 3))
    check_shape("label_map", label_map, ("batch", "height", "width"))
    label_sets = label_sets or LabelSets(anatomy.num_classes)
    check_labels("label_map", label_map, label_sets.num_labels)
    patches = []
    for i, (part, size) in enumerate(
        zip(anatomy.parts, part_sizes(sizes, anatomy.num_parts), strict=True)
    ):
        patch = crop_nearest(label_map[..., None], theta[:, i], size, axis_aligned=axis_aligned)[
            ..., 0
        ]
        labels = jnp.zeros(patch.shape, jnp.int32)
        for frame_label, label in enumerate(_patch_labels(part, anatomy, label_sets)):
            if label:
                labels += (patch == frame_label).astype(jnp.int32) * label
        patches.append(labels)
    return tuple(patches)


def _patch_labels(part: Part, anatomy: Anatomy, label_sets: LabelSets) -> list[int]:
    """Returns the label in a part's patch of each label of the frame."""
    of_class = anatomy.patch_labels(part)
    found = [{of_class[c] for c in classes} for classes in label_sets.sets]
    open_label = 1 + len(part.classes)
    return [labels.pop() if len(labels) == 1 else open_label for labels in found]


def _check_crop(image: jax.Array, theta: jax.Array) -> None:
    check_shape("image", image, ("batch", "height", "width", "channels"))
    check_shape("theta", theta, (..., 2, 3))
    if theta.ndim not in (3, 4):
        raise ValueError(f"theta has shape {theta.shape}, but must be (batch, [patches,] 2, 3)")
    check_same_batch(image=image, theta=theta)


@partial(jax.jit, static_argnums=(0, 3, 4))
def _crop(sample, image: jax.Array, theta: jax.Array, size: Size, axis_aligned: bool) -> jax.Array:
    """Returns every patch of every image."""
    several = theta.ndim == 4
    patches = jax.vmap(lambda image, theta: sample(image, theta, size, axis_aligned))(
        image, theta if several else theta[:, None]
    )
    return patches if several else patches[:, 0]


def _implementation(axis_aligned: bool):
    """Returns the module that samples on this platform."""
    by_matmul = axis_aligned and current_implementations().sampling == "matmul"
    return matmul if by_matmul else gather


def _nearest(image: jax.Array, theta: jax.Array, size: Size, axis_aligned: bool) -> jax.Array:
    return _implementation(axis_aligned).nearest(image, theta, size)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _bilinear(image: jax.Array, theta: jax.Array, size: Size, axis_aligned: bool) -> jax.Array:
    return _implementation(axis_aligned).bilinear(image, theta, size)


def _bilinear_forward(image: jax.Array, theta: jax.Array, size: Size, axis_aligned: bool):
    return _bilinear(image, theta, size, axis_aligned), (image, theta)


def _bilinear_backward(size: Size, axis_aligned: bool, saved, cotangent: jax.Array):
    return _implementation(axis_aligned).bilinear_gradients(*saved, cotangent, size)


_bilinear.defvjp(_bilinear_forward, _bilinear_backward)
