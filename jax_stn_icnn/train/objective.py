"""The loss of a stage: which networks run, in which mode, and the weighed terms of their loss.

Everything is a pure function of variables and views. A term is a mean and the count it is over, so
that devices whose counts differ can be averaged rightly.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jax_stn_icnn import sampling
from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.data.augment import augment, mirror_some, random_variants
from jax_stn_icnn.data.photometric import OFF, Strengths, photometric
from jax_stn_icnn.data.views import coarse_view, to_float
from jax_stn_icnn.geometry import theta_target
from jax_stn_icnn.models.localizer import centroid_theta
from jax_stn_icnn.models.pipeline import CENTROID, STNiCNN
from jax_stn_icnn.train import losses
from jax_stn_icnn.train.config import Consensus, Stage

PIXEL_LOSSES = {
    "cross_entropy": losses.cross_entropy,
    "binary_cross_entropy": losses.binary_cross_entropy,
    "balanced_cross_entropy": losses.balanced_cross_entropy,
}


class Term(NamedTuple):
    """A term of the loss.

    Attributes:
        mean: over what takes part on this device.
        amount: how much takes part: examples, or parts that are there.
    """

    mean: jax.Array
    amount: jax.Array


@struct.dataclass
class Views:
    """What the networks see of a batch, and what they should say.

    Attributes:
        coarse_image: (batch, *model.coarse_image_size, 3).
        coarse_labels: class ids (batch, 128, 128).
        whole_labels: class ids at the size of the coarse image.
        frame: floats (batch, size, size, 3).
        labels: class ids (batch, size, size).
        region: where in the frame the picture lies, (batch, 2, 3).
        theta: the true windows, (batch, parts, 2, 3).
        present: which parts are there, bool (batch, parts).
    """

    coarse_image: jax.Array
    coarse_labels: jax.Array
    whole_labels: jax.Array
    frame: jax.Array
    labels: jax.Array
    region: jax.Array
    theta: jax.Array
    present: jax.Array


def make_views(
    batch: dict[str, jax.Array],
    keys: jax.Array,
    model: STNiCNN,
    augmented: bool,
    mirrored: bool,
    photo: Strengths = OFF,
) -> Views:
    """Turns a batch of the loader into what the networks see.

    Args:
        batch: `frame` and `labels`, uint8, and `region`.
        keys: one for each example, (batch,).
        model: the parser that is to see them.
        augmented: whether each example becomes a random one of its five variants.
        mirrored: whether every second example, at random, is mirrored.
        photo: how strongly examples are made like photos as people take them.

    Returns:
        The views.
    """
    pixels, label_map, region = batch["frame"], batch["labels"], batch["region"]
    if mirrored:
        pixels, label_map, region = mirror_some(keys, pixels, label_map, region, model.anatomy)
    frame = to_float(pixels)
    if augmented or photo.turn or photo.zoom:
        variants = random_variants(keys) if augmented else jnp.zeros(len(pixels), jnp.int32)
        frame, label_map = augment(
            keys, pixels, label_map, region, variants, photo.turn, photo.zoom
        )
    frame = photometric(keys, frame, region, photo)
    label_map = label_map.astype(jnp.int32)
    coarse_image, whole_labels = coarse_view(frame, label_map, region, model.coarse_image_size)
    # Every so many rows and columns: the same as those of a view of 128 x 128.
    coarse_labels = whole_labels[:, :: model.detail, :: model.detail]
    theta, present = theta_target(label_map, model.patch_size, model.anatomy, model.following)
    return Views(
        coarse_image, coarse_labels, whole_labels, frame, label_map, region, theta, present
    )


def jittered(theta: jax.Array, keys: jax.Array, jitter: int, frame_size: int) -> jax.Array:
    """Moves windows by whole pixels, at random and each on its own.

    Args:
        theta: (batch, parts, 2, 3).
        keys: one for each example, (batch,).
        jitter: the furthest, in frame pixels along each axis.
        frame_size: side of the frame.

    Returns:
        Thetas of the same shape.
    """

    def shift(key: jax.Array) -> jax.Array:
        # Augmentation draws from the key itself.
        own = jax.random.fold_in(key, 1)
        return jax.random.randint(own, (theta.shape[1], 2), -jitter, jitter + 1)

    return theta.at[..., 2].add(jax.vmap(shift)(keys) * (2.0 / (frame_size - 1)))


def terms(
    parser: STNiCNN,
    views: Views,
    keys: jax.Array,
    stage: Stage,
    consensus_share: jax.Array | float = 1.0,
) -> dict[str, Term]:
    """Runs the networks that a stage needs, each in its mode; for `model.apply(..., method=terms)`.

    Args:
        parser: the bound module.
        views: of `make_views`.
        keys: one for each example, (batch,), for the jitter of the true windows.
        stage: says which terms are wanted and which networks learn; the others run frozen, with
            their running statistics.
        consensus_share: how much of the consensus' weights counts, 0..1.

    Returns:
        The wanted terms by name.
    """
    wanted, learns = stage.loss_weights, stage.learning_rates
    examples = jnp.float32(views.frame.shape[0])
    found: dict[str, Term] = {}
    if stage.true_windows:
        theta = jittered(views.theta, keys, stage.jitter, views.frame.shape[1])
    else:
        logits, whole, edge_logits = parser.coarse_stage(
            views.coarse_image, train="coarse" in learns
        )
        if "coarse" in wanted:
            loss = PIXEL_LOSSES[stage.coarse_loss](logits, views.coarse_labels)
            # Without detail these are the same logits: said twice, they would outweigh the parts.
            if whole is not None and parser.detail > 1:
                loss += _whole_loss(whole, views, parser.anatomy)
            if weight := stage.consensus.coarse:
                agreement = _consensus(logits, views.coarse_labels, stage.consensus)
                loss += weight * consensus_share * agreement
            if weight := stage.edges.coarse:
                within = stage.edges.within
                loss += weight * losses.edge_cross_entropy(logits, views.coarse_labels, within)
            if weight := stage.edges.task:
                if edge_logits is None:
                    raise ValueError("the stage has an edge task, but the model has no edges")
                loss += weight * losses.edge_task_loss(edge_logits, views.coarse_labels)
            found["coarse"] = Term(loss, examples)
        if wanted.keys() == {"coarse"}:
            return found
        theta = _windows(parser, jax.nn.softmax(logits), views, train="localizer" in learns)
    if "localizer" in wanted:
        loss = losses.smooth_l1(theta, views.theta, views.present)
        found["localizer"] = Term(loss, jnp.sum(views.present, dtype=jnp.float32))
    if "fine" in wanted:
        _, fine_logits = parser.fine_stage(views.frame, theta, train="fine" in learns)
        part_labels = sampling.crop_part_labels(
            views.labels, theta, parser.patch_size, parser.anatomy
        )
        by_part = losses.fine_losses(fine_logits, part_labels)
        if weight := stage.consensus.fine:
            each = zip(fine_logits, losses.each_parts(part_labels), strict=True)
            agreement = jnp.stack([_consensus(*one, stage.consensus) for one in each])
            by_part += weight * consensus_share * agreement
        if weight := stage.edges.fine:
            each = zip(fine_logits, losses.each_parts(part_labels), strict=True)
            by_part += weight * jnp.stack(
                [losses.edge_cross_entropy(*one, stage.edges.within) for one in each]
            )
        found["fine"] = Term(jnp.sum(by_part * jnp.array(stage.part_weights)), examples)
    return found


def _windows(parser: STNiCNN, mask: jax.Array, views: Views, *, train: bool) -> jax.Array:
    if parser.cropper == CENTROID:
        size = views.frame.shape[1:3]
        return centroid_theta(mask, views.region, size, parser.patch_size, parser.anatomy)
    return parser.localize(mask, train=train)


def _consensus(logits: jax.Array, label_map: jax.Array, settings: Consensus) -> jax.Array:
    connected = settings.regions == "connected"
    return losses.mean_consensus_loss(
        logits, label_map, connected=connected, alpha=settings.alpha, beta=settings.beta
    )


def _whole_loss(logits: jax.Array, views: Views, anatomy: Anatomy) -> jax.Array:
    return losses.windowless_cross_entropy(
        logits, views.whole_labels, anatomy.windowless, anatomy.num_classes
    )


def weigh(
    found: dict[str, Term], stage: Stage, axis_name: str
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss on this device, such that the devices' mean is the loss of the global batch.

    Args:
        found: of `terms`.
        stage: whose weights count.
        axis_name: the mapped axis of devices.

    Returns:
        The loss, and the terms by name, unweighted; average all of them over the devices.
    """
    # A mean counts by this device's share of what it is over; without that, a device with few
    # parts would say as much as one with many.
    shares = {
        name: term.mean * term.amount / jnp.maximum(jax.lax.pmean(term.amount, axis_name), 1e-6)
        for name, term in found.items()
    }
    loss = sum((stage.loss_weights[name] * share for name, share in shares.items()), jnp.zeros(()))
    return loss, shares
