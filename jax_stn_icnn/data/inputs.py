"""The inputs of training: from a batch of the loader to what networks and losses take.

    uint8 batch -> mirror -> warp -> photometric -> coarse image and labels -> true windows

Everything runs on the device and depends on an example's key only.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jax_stn_icnn import ops
from jax_stn_icnn.data import keys as keys_of
from jax_stn_icnn.data.augment import augment, random_mirror, random_variants
from jax_stn_icnn.data.config import AugmentConfig
from jax_stn_icnn.data.photometric import random_photometric
from jax_stn_icnn.geometry import theta_target
from jax_stn_icnn.label_sets import LabelSets
from jax_stn_icnn.models.config import ModelConfig

NO_AUGMENTATION = AugmentConfig()


@struct.dataclass
class Inputs:
    """Inputs and targets of the networks for a batch.

    Attributes:
        coarse_image: (batch, *coarse_image_size, 3).
        coarse_labels: Labels (batch, coarse_size, coarse_size).
        global_labels: Labels at the size of the coarse image, by nearest neighbour.
        frame: Floats (batch, size, size, 3).
        labels: Labels (batch, size, size).
        region: Thetas of the picture's rectangle in the frame, (batch, 2, 3).
        theta: The true windows, (batch, parts, 2, 3).
        present: Which parts are present, bool (batch, parts).
        teacher: Coarse image and frame before photometric augmentation, for self-distillation; None
            if not requested.
        has_parts: Which of the labelled examples have labels for every class of the parts, bool
            (labelled examples,); None if all have.
        num_labelled: Number of examples with labels, the first ones; None for all.
        label_sets: The classes of each label; None if labels are class ids.
    """

    coarse_image: jax.Array
    coarse_labels: jax.Array
    global_labels: jax.Array
    frame: jax.Array
    labels: jax.Array
    region: jax.Array
    theta: jax.Array
    present: jax.Array
    teacher: tuple[jax.Array, jax.Array] | None = None
    has_parts: jax.Array | None = None
    num_labelled: int | None = struct.field(pytree_node=False, default=None)
    label_sets: LabelSets | None = struct.field(pytree_node=False, default=None)


def make_inputs(
    batch: dict[str, jax.Array],
    keys: jax.Array,
    model: ModelConfig,
    augmentation: AugmentConfig = NO_AUGMENTATION,
    with_teacher: bool = False,
    label_sets: LabelSets | None = None,
) -> Inputs:
    """Returns the inputs and targets of a batch, augmented.

    Args:
        batch: `frame` and `labels`, uint8, and `region`; possibly `has_parts`; possibly
            `unlabelled` and `unlabelled_region`, which are appended with background as labels.
        keys: A key for each example, (batch,); unused without augmentation.
        model: Options of the model.
        augmentation: Options of the augmentation.
        with_teacher: Whether `Inputs.teacher` is returned.
        label_sets: The classes of each label; None if labels are class ids.

    Returns:
        The inputs.
    """
    pixels, label_map, region = batch["frame"], batch["labels"], batch["region"]
    anatomy = model.anatomy
    num_labelled = None
    if "unlabelled" in batch:
        num_labelled = len(pixels)
        keys, pixels, label_map, region = _append_unlabelled(batch, keys)
    if augmentation.mirror:
        ids = label_sets.mirror_ids(anatomy) if label_sets else anatomy.mirror_ids
        pixels, label_map, region = random_mirror(keys, pixels, label_map, region, ids)
    frame = ops.to_float(pixels)
    if augmentation.variants or augmentation.rotation or augmentation.zoom:
        variant = jnp.zeros(len(pixels), jnp.int32)
        if augmentation.variants:
            variant = random_variants(keys)
        frame, label_map = augment(
            keys, frame, label_map, region, variant, augmentation.rotation, augmentation.zoom
        )
    label_map = label_map.astype(jnp.int32)
    size = model.coarse_image_size
    teacher = (ops.coarse_image(frame, region, size), frame) if with_teacher else None
    frame = random_photometric(keys, frame, region, augmentation)
    # Every stride-th row and column of the labels at the coarse image's size.
    stride = model.coarse_stride
    coarse_labels = ops.coarse_labels(label_map, region, size)[:, ::stride, ::stride]
    # By nearest neighbour instead, since global logits are mapped back to the frame the way the
    # coarse image was resized.
    global_labels = ops.crop_nearest(label_map[..., None], region, size, axis_aligned=True)[..., 0]
    # A label of several classes has no place of its own; background has no window.
    class_map = label_map
    if label_sets:
        class_map = jnp.where(label_map < anatomy.num_classes, label_map, 0)
    theta, present = theta_target(class_map, model.patch_sizes, anatomy)
    has_parts = batch.get("has_parts")
    if has_parts is not None:
        # Some labels of a part do not make its center.
        present &= jnp.pad(has_parts, (0, len(present) - len(has_parts)))[:, None]
    return Inputs(
        ops.coarse_image(frame, region, size),
        coarse_labels,
        global_labels,
        frame,
        label_map,
        region,
        theta,
        present,
        teacher,
        has_parts,
        num_labelled,
        label_sets,
    )


def _append_unlabelled(
    batch: dict[str, jax.Array], keys: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns keys, frames, labels and regions with the unlabelled examples at the end."""
    count = len(batch["frame"])
    others = jax.vmap(jax.random.fold_in, (0, None))(keys, keys_of.UNLABELLED)
    return (
        jnp.concatenate([keys, others]),
        jnp.concatenate([batch["frame"], batch["unlabelled"]]),
        jnp.pad(batch["labels"], [(0, count), (0, 0), (0, 0)]),
        jnp.concatenate([batch["region"], batch["unlabelled_region"]]),
    )
