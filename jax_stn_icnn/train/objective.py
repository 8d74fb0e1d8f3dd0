"""The loss of a stage: which networks run, in which mode, and the weighted terms of their loss.

Everything is a pure function of variables and inputs. A term is a mean and the count that it is
over, so that the mean over devices with different counts is the mean over the global batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_stn_icnn import ops
from jax_stn_icnn.data import keys as keys_of
from jax_stn_icnn.data.inputs import Inputs
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.models.unet import CoarseOutput
from jax_stn_icnn.train import consensus, distillation, losses
from jax_stn_icnn.train.stages import Consensus, Stage

PIXEL_LOSSES = {
    "cross_entropy": losses.cross_entropy,
    "binary_cross_entropy": losses.binary_cross_entropy,
    "balanced_cross_entropy": losses.balanced_cross_entropy,
}


class Term(NamedTuple):
    """A term of the loss.

    Attributes:
        mean: Mean over this device.
        count: Number of elements of the mean: examples, or parts that are present.
    """

    mean: jax.Array
    count: jax.Array


def loss_terms(
    model: STNiCNN,
    inputs: Inputs,
    keys: jax.Array,
    stage: Stage,
    consensus_share: jax.Array | float = 1.0,
    ema_variables: Mapping[str, Any] | None = None,
) -> dict[str, Term]:
    """Returns the terms of a stage's loss; for `model.apply(..., method=loss_terms)`.

    It runs the networks that the stage needs: those that learn in training mode, the others with
    their running statistics.

    Args:
        model: The bound module.
        inputs: Inputs and targets of the batch.
        keys: A key for each example, (batch,), for the jitter of the true windows.
        stage: The stage.
        consensus_share: Factor of the weights of the consensus loss, 0..1.
        ema_variables: The teacher's variables, for a stage of self-distillation.

    Returns:
        The terms by name.
    """
    wanted, learns = stage.loss_weights, stage.learning_rates
    examples = jnp.float32(len(_labelled(inputs.frame, inputs)))
    terms: dict[str, Term] = {}
    coarse: CoarseOutput | None = None
    if not stage.true_windows or model.config.bridge:
        coarse = model.coarse_stage(inputs.coarse_image, train="coarse" in learns)
    if coarse is not None and "coarse" in wanted:
        loss = _coarse_loss(model, coarse, inputs, stage, consensus_share)
        terms["coarse"] = Term(loss, examples)
        if wanted.keys() == {"coarse"}:
            return terms
    theta = _windows(model, coarse, inputs, keys, stage)
    if "localizer" in wanted:
        loss = losses.smooth_l1(theta, inputs.theta, inputs.present)
        terms["localizer"] = Term(loss, jnp.sum(inputs.present, dtype=jnp.float32))
    if "fine" in wanted:
        _, fine_logits = model.fine_stage(
            inputs.frame, theta, coarse, inputs.region, train="fine" in learns
        )
        if ema_variables is not None and coarse is not None:
            distances = distillation.distillation_losses(
                model, ema_variables, inputs, coarse, theta, fine_logits, stage.part_weights
            )
            all_examples = jnp.float32(inputs.frame.shape[0])
            terms |= {name: Term(mean, all_examples) for name, mean in distances.items()}
        loss = _fine_loss(model, fine_logits, theta, inputs, stage, consensus_share)
        terms["fine"] = Term(loss, examples)
    return {name: term for name, term in terms.items() if name in wanted}


def weighted_sum(
    terms: dict[str, Term], stage: Stage, axis_name: str
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss on this device, whose mean over devices is the loss of the global batch.

    Args:
        terms: The terms by name.
        stage: The stage, whose weights apply.
        axis_name: The mapped axis of devices.

    Returns:
        The loss, and the terms by name, unweighted; all are to be averaged over the devices.
    """
    # Each mean is weighted by this device's share of the count: otherwise a device with few parts
    # would contribute as much as one with many.
    means = {
        name: term.mean * term.count / jnp.maximum(jax.lax.pmean(term.count, axis_name), 1e-6)
        for name, term in terms.items()
    }
    loss = sum((stage.loss_weights[name] * mean for name, mean in means.items()), jnp.zeros(()))
    return loss, means


def jittered(theta: jax.Array, keys: jax.Array, jitter: int, frame_size: int) -> jax.Array:
    """Returns windows shifted by random whole pixels, each independently.

    Args:
        theta: (batch, parts, 2, 3).
        keys: A key for each example, (batch,).
        jitter: Largest shift in frame pixels along each axis.
        frame_size: Side of the frame.

    Returns:
        Thetas of the same shape.
    """

    def shift(key: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, keys_of.JITTER)
        return jax.random.randint(own, (theta.shape[1], 2), -jitter, jitter + 1)

    return theta.at[..., 2].add(jax.vmap(shift)(keys) * (2.0 / (frame_size - 1)))


def _windows(
    model: STNiCNN, coarse: CoarseOutput | None, inputs: Inputs, keys: jax.Array, stage: Stage
) -> jax.Array:
    """Returns the windows that patches are cropped from: the true ones, jittered, or predicted."""
    frame_size = inputs.frame.shape[1:3]
    if stage.true_windows or coarse is None:
        return jittered(inputs.theta, keys, stage.jitter, frame_size[0])
    return model.localize(
        jax.nn.softmax(coarse.logits),
        frame_size,
        inputs.region,
        train="localizer" in stage.learning_rates,
    )


def _labelled(tree: Any, inputs: Inputs) -> Any:
    """Returns the rows of the examples that have labels."""
    if inputs.num_labelled is None:
        return tree
    return jax.tree.map(lambda rows: rows[: inputs.num_labelled], tree)


def _coarse_loss(
    model: STNiCNN,
    coarse: CoarseOutput,
    inputs: Inputs,
    stage: Stage,
    consensus_share: jax.Array | float,
) -> jax.Array:
    """Returns the loss of the coarse network."""
    coarse, inputs = _labelled(coarse, inputs), _labelled(inputs, inputs)
    logits, labels = coarse.logits, inputs.coarse_labels
    loss = PIXEL_LOSSES[stage.coarse_loss](logits, labels)
    # At stride 1 the global logits are part of `logits`, and would count twice.
    if coarse.global_logits is not None and model.config.coarse_stride > 1:
        anatomy = model.config.anatomy
        loss += losses.global_cross_entropy(
            coarse.global_logits, inputs.global_labels, anatomy.global_ids, anatomy.num_classes
        )
    if weight := stage.consensus.coarse:
        loss += weight * consensus_share * _consensus(logits, labels, stage.consensus)
    if weight := stage.edges.coarse:
        loss += weight * losses.edge_cross_entropy(logits, labels, stage.edges.within)
    if weight := stage.edges.task:
        if coarse.edge_logits is None:
            raise ValueError("the stage has an edge task, but the model has no edge head")
        loss += weight * losses.edge_task_loss(coarse.edge_logits, labels)
    return loss


def _fine_loss(
    model: STNiCNN,
    logits: Sequence[jax.Array],
    theta: jax.Array,
    inputs: Inputs,
    stage: Stage,
    consensus_share: jax.Array | float,
) -> jax.Array:
    """Returns the loss of the fine networks, the weighted sum over the parts."""
    logits, theta, inputs = (_labelled(tree, inputs) for tree in (logits, theta, inputs))
    labels = ops.crop_part_labels(
        inputs.labels, theta, model.config.patch_sizes, model.config.anatomy, axis_aligned=True
    )
    by_part = losses.fine_losses(logits, labels)
    pairs = list(zip(logits, labels, strict=True))
    if weight := stage.consensus.fine:
        agreement = jnp.stack([_consensus(*pair, stage.consensus) for pair in pairs])
        by_part += weight * consensus_share * agreement
    if weight := stage.edges.fine:
        by_part += weight * jnp.stack(
            [losses.edge_cross_entropy(*pair, stage.edges.within) for pair in pairs]
        )
    return jnp.sum(by_part * jnp.array(stage.part_weights))


def _consensus(logits: jax.Array, label_map: jax.Array, settings: Consensus) -> jax.Array:
    connected = settings.regions == "connected"
    return consensus.mean_consensus_loss(
        logits, label_map, connected=connected, alpha=settings.alpha, beta=settings.beta
    )
