"""The loss of a stage: which networks run, in which mode, and the weighed terms of their loss.

Everything is a pure function of variables and views. A term is a mean and the count it is over, so
that devices whose counts differ can be averaged rightly.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.data import keys as keys_of
from jax_stn_icnn.models.localizer import centroid_theta
from jax_stn_icnn.models.pipeline import CENTROID, STNiCNN
from jax_stn_icnn.models.unet import CoarseOutput
from jax_stn_icnn.train import consensus, distillation, losses
from jax_stn_icnn.train.stages import Consensus, Stage
from jax_stn_icnn.train.views import Inputs

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
        own = jax.random.fold_in(key, keys_of.JITTER)
        return jax.random.randint(own, (theta.shape[1], 2), -jitter, jitter + 1)

    return theta.at[..., 2].add(jax.vmap(shift)(keys) * (2.0 / (frame_size - 1)))


def terms(
    parser: STNiCNN,
    views: Inputs,
    keys: jax.Array,
    stage: Stage,
    consensus_share: jax.Array | float = 1.0,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Term]:
    """Runs the networks that a stage needs, each in its mode; for `model.apply(..., method=terms)`.

    Args:
        parser: the bound module.
        views: of `make_inputs`.
        keys: one for each example, (batch,), for the jitter of the true windows.
        stage: says which terms are wanted and which networks learn; the others run frozen, with
            their running statistics.
        consensus_share: how much of the consensus' weights counts, 0..1.
        earlier: the average of earlier weights, for a stage of self-distillation.

    Returns:
        The wanted terms by name.
    """
    wanted, learns = stage.loss_weights, stage.learning_rates
    examples = jnp.float32(len(_labelled(views.frame, views)))
    found: dict[str, Term] = {}
    coarse: CoarseOutput | None = None
    if stage.true_windows:
        theta = jittered(views.theta, keys, stage.jitter, views.frame.shape[1])
        if parser.bridge:
            coarse = parser.coarse_stage(views.coarse_image, train="coarse" in learns)
    else:
        coarse = parser.coarse_stage(views.coarse_image, train="coarse" in learns)
        if "coarse" in wanted:
            loss = _coarse_loss(parser, coarse, views, stage, consensus_share)
            found["coarse"] = Term(loss, examples)
        if wanted.keys() == {"coarse"}:
            return found
        theta = _windows(parser, jax.nn.softmax(coarse.all), views, train="localizer" in learns)
    if "localizer" in wanted:
        loss = losses.smooth_l1(theta, views.theta, views.present)
        found["localizer"] = Term(loss, jnp.sum(views.present, dtype=jnp.float32))
    if "fine" in wanted:
        _, all_logits = parser.fine_stage(
            views.frame, theta, coarse, views.region, train="fine" in learns
        )
        if earlier is not None and coarse is not None:
            apart = distillation.distances(
                parser, earlier, views, coarse, theta, all_logits, stage.part_weights
            )
            everything = jnp.float32(views.frame.shape[0])
            found |= {name: Term(mean, everything) for name, mean in apart.items()}
        loss = _fine_loss(parser, all_logits, theta, views, stage, consensus_share)
        found["fine"] = Term(loss, examples)
    return {name: term for name, term in found.items() if name in wanted}


def _labelled(tree: Any, views: Inputs) -> Any:
    """The rows of the examples that have labels."""
    if views.num_labelled is None:
        return tree
    return jax.tree.map(lambda rows: rows[: views.num_labelled], tree)


def _coarse_loss(
    parser: STNiCNN,
    coarse: CoarseOutput,
    views: Inputs,
    stage: Stage,
    consensus_share: jax.Array | float,
) -> jax.Array:
    """That of the coarse network's pixels, with what the stage adds to it."""
    coarse, views = _labelled(coarse, views), _labelled(views, views)
    logits, labels = coarse.all, views.coarse_labels
    loss = PIXEL_LOSSES[stage.coarse_loss](logits, labels)
    # Without coarse_stride these are the same logits: said twice, they would outweigh the parts.
    if coarse.whole is not None and parser.coarse_stride > 1:
        loss += _whole_loss(coarse.whole, views, parser.anatomy)
    if weight := stage.consensus.coarse:
        loss += weight * consensus_share * _consensus(logits, labels, stage.consensus)
    if weight := stage.edges.coarse:
        loss += weight * losses.edge_cross_entropy(logits, labels, stage.edges.within)
    if weight := stage.edges.task:
        if coarse.edges is None:
            raise ValueError("the stage has an edge task, but the model has no edges")
        loss += weight * losses.edge_task_loss(coarse.edges, labels)
    return loss


def _fine_loss(
    parser: STNiCNN,
    logits: Sequence[jax.Array],
    theta: jax.Array,
    views: Inputs,
    stage: Stage,
    consensus_share: jax.Array | float,
) -> jax.Array:
    """That of the patches' pixels, with what the stage adds to it."""
    logits, theta, views = (_labelled(tree, views) for tree in (logits, theta, views))
    labels = ops.crop_part_labels(
        views.labels, theta, parser.patch_size, parser.anatomy, axis_aligned=True
    )
    by_part = losses.fine_losses(logits, labels)
    each = list(zip(logits, losses.each_parts(labels), strict=True))
    if weight := stage.consensus.fine:
        agreement = jnp.stack([_consensus(*one, stage.consensus) for one in each])
        by_part += weight * consensus_share * agreement
    if weight := stage.edges.fine:
        by_part += weight * jnp.stack(
            [losses.edge_cross_entropy(*one, stage.edges.within) for one in each]
        )
    return jnp.sum(by_part * jnp.array(stage.part_weights))


def _windows(parser: STNiCNN, mask: jax.Array, views: Inputs, *, train: bool) -> jax.Array:
    if parser.cropper == CENTROID:
        size = views.frame.shape[1:3]
        return centroid_theta(mask, views.region, size, parser.patch_size, parser.anatomy)
    return parser.localize(mask, train=train)


def _consensus(logits: jax.Array, label_map: jax.Array, settings: Consensus) -> jax.Array:
    connected = settings.regions == "connected"
    return consensus.mean_consensus_loss(
        logits, label_map, connected=connected, alpha=settings.alpha, beta=settings.beta
    )


def _whole_loss(logits: jax.Array, views: Inputs, anatomy: Anatomy) -> jax.Array:
    return losses.global_cross_entropy(
        logits, views.global_labels, anatomy.global_ids, anatomy.num_classes
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
