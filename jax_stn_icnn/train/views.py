"""What the networks see of a batch, and what they should say of it."""

import jax
import jax.numpy as jnp
from flax import struct

from jax_stn_icnn import ops
from jax_stn_icnn.data import keys as keys_of
from jax_stn_icnn.data.augment import augment, mirror_some, random_variants
from jax_stn_icnn.data.photometric import OFF, Strengths, photometric
from jax_stn_icnn.data.views import coarse_view, to_float
from jax_stn_icnn.geometry import theta_target
from jax_stn_icnn.models.pipeline import STNiCNN


@struct.dataclass
class Inputs:
    """What the networks see of a batch, and what they should say.

    Attributes:
        coarse_image: (batch, *model.coarse_image_size, 3).
        coarse_labels: class ids (batch, model.coarse_size, model.coarse_size).
        global_labels: class ids at the size of the coarse image, each of the pixel nearest to one of
            the coarse image.
        frame: floats (batch, size, size, 3).
        labels: class ids (batch, size, size).
        region: where in the frame the picture lies, (batch, 2, 3).
        theta: the true windows, (batch, parts, 2, 3).
        present: which parts are there, bool (batch, parts).
        plain: coarse image and frame before they were made like photos, if asked for.
        num_labelled: how many examples have labels, the first ones; None: all.
    """

    coarse_image: jax.Array
    coarse_labels: jax.Array
    global_labels: jax.Array
    frame: jax.Array
    labels: jax.Array
    region: jax.Array
    theta: jax.Array
    present: jax.Array
    plain: tuple[jax.Array, jax.Array] | None = None
    num_labelled: int | None = struct.field(pytree_node=False, default=None)


def make_inputs(
    batch: dict[str, jax.Array],
    keys: jax.Array,
    model: STNiCNN,
    augmented: bool,
    mirrored: bool,
    photo: Strengths = OFF,
    plain: bool = False,
) -> Inputs:
    """Turns a batch of the loader into what the networks see.

    Args:
        batch: `frame` and `labels`, uint8, and `region`; maybe `unlabelled` and
            `unlabelled_region`, which come behind them, with background for labels.
        keys: one for each example, (batch,).
        model: the parser that is to see them.
        augmented: whether each example becomes a random one of its five variants.
        mirrored: whether every second example, at random, is mirrored.
        photo: how strongly examples are made like photos as people take them.
        plain: whether the views hold the examples as they were before that, too.

    Returns:
        The views.
    """
    pixels, label_map, region = batch["frame"], batch["labels"], batch["region"]
    num_labelled = None
    if "unlabelled" in batch:
        num_labelled = len(pixels)
        others = jax.vmap(lambda key: jax.random.fold_in(key, keys_of.UNLABELLED))(keys)
        keys = jnp.concatenate([keys, others])
        pixels = jnp.concatenate([pixels, batch["unlabelled"]])
        region = jnp.concatenate([region, batch["unlabelled_region"]])
        label_map = jnp.pad(label_map, [(0, num_labelled), (0, 0), (0, 0)])
    if mirrored:
        pixels, label_map, region = mirror_some(keys, pixels, label_map, region, model.anatomy)
    frame = to_float(pixels)
    if augmented or photo.turn or photo.zoom:
        variants = random_variants(keys) if augmented else jnp.zeros(len(pixels), jnp.int32)
        frame, label_map = augment(
            keys, pixels, label_map, region, variants, photo.turn, photo.zoom
        )
    before = frame
    frame = photometric(keys, frame, region, photo)
    label_map = label_map.astype(jnp.int32)
    size = model.coarse_image_size
    coarse_image, coarse_labels = coarse_view(frame, label_map, region, size)
    # Every so many rows and columns: the same as those of a view of 128 x 128.
    coarse_labels = coarse_labels[:, :: model.coarse_stride, :: model.coarse_stride]
    # Not so: finer logits are carried back to the frame by the way that the coarse image came, so
    # each is to name the pixel that it lies on.
    global_labels = ops.crop_nearest(label_map[..., None], region, size, axis_aligned=True)[..., 0]
    theta, present = theta_target(label_map, model.patch_size, model.anatomy, model.following)
    return Inputs(
        coarse_image,
        coarse_labels,
        global_labels,
        frame,
        label_map,
        region,
        theta,
        present,
        (coarse_view(before, label_map, region, size)[0], before) if plain else None,
        num_labelled,
    )
