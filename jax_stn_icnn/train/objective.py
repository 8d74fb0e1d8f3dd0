"""The loss of a stage: which networks run, in which mode, and the weighted terms of their loss.

Everything is a pure function of variables and inputs. A term is a mean and its number of
elements, so that the mean over devices with different numbers is the mean over the global batch.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_stn_icnn import ops
from jax_stn_icnn.data import keys as keys_of
from jax_stn_icnn.data.inputs import Inputs
from jax_stn_icnn.label_sets import LabelSets
from jax_stn_icnn.models.coarse import CoarseOutput
from jax_stn_icnn.models.fine import PartLoss
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.train import distillation, losses
from jax_stn_icnn.train.consensus import mean_consensus_loss
from jax_stn_icnn.train.stages import Stage


class Term(NamedTuple):
    """A term of the loss.

    Attributes:
        mean: Mean over this device.
        size: Number of elements of the mean: examples, or present parts.
    """

    mean: jax.Array
    size: jax.Array


def loss_terms(
    model: STNiCNN,
    inputs: Inputs,
    keys: jax.Array,
    stage: Stage,
    consensus_share: jax.Array | float = 1.0,
    ema_variables: Mapping[str, Any] | None = None,
) -> dict[str, Term]:
    """Returns the terms of a stage's loss; for `model.apply(..., method=loss_terms)`.

    Runs the networks that the stage needs: trained networks in training mode, frozen ones with
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
    required, trained = stage.loss_weights, stage.learning_rates
    examples = jnp.float32(len(_labelled(inputs.frame, inputs)))
    terms: dict[str, Term] = {}
    coarse: CoarseOutput | None = None
    if not stage.true_windows or model.config.bridge:
        coarse = model.coarse_stage(inputs.coarse_image, train="coarse" in trained)
    if coarse is not None and "coarse" in required:
        loss = _coarse_loss(model, coarse, inputs, stage, consensus_share)
        terms["coarse"] = Term(loss, examples)
        if required.keys() == {"coarse"}:
            return terms
    theta = _windows(model, coarse, inputs, keys, stage)
    if "localizer" in required:
        loss = losses.smooth_l1(theta, inputs.theta, inputs.present)
        terms["localizer"] = Term(loss, jnp.sum(inputs.present, dtype=jnp.float32))
    if "fine" in required:
        terms |= _fine_terms(
            model, coarse, theta, inputs, stage, consensus_share, ema_variables, examples
        )
    return {name: term for name, term in terms.items() if name in required}


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
    # Each mean is weighted by this device's share of the elements: otherwise a device with few
    # parts would contribute as much as one with many.
    means = {
        name: term.mean * term.size / jnp.maximum(jax.lax.pmean(term.size, axis_name), 1e-6)
        for name, term in terms.items()
    }
    loss = sum((stage.loss_weights[name] * mean for name, mean in means.items()), jnp.zeros(()))
    return loss, means


def jitter_windows(theta: jax.Array, keys: jax.Array, jitter: int, frame_size: int) -> jax.Array:
    """Shifts each window by random whole pixels.

    Args:
        theta: (batch, parts, 2, 3).
        keys: A key for each example, (batch,).
        jitter: Largest shift in frame pixels along each axis.
        frame_size: Side of the frame.

    Returns:
        Thetas of the same shape.
    """

    def shift(key: jax.Array) -> jax.Array:
        key = jax.random.fold_in(key, keys_of.JITTER)
        return jax.random.randint(key, (theta.shape[1], 2), -jitter, jitter + 1)

    return theta.at[..., 2].add(jax.vmap(shift)(keys) * (2.0 / (frame_size - 1)))


def _fine_terms(
    model: STNiCNN,
    coarse: CoarseOutput | None,
    theta: jax.Array,
    inputs: Inputs,
    stage: Stage,
    consensus_share: jax.Array | float,
    ema_variables: Mapping[str, Any] | None,
    examples: jax.Array,
) -> dict[str, Term]:
    """Returns the terms of the fine networks, and of distillation if there is a teacher."""
    part_loss, targets = _part_losses(model, theta, inputs, stage, consensus_share)
    trained = "fine" in stage.learning_rates
    given = inputs.frame, theta
    if trained and ema_variables is None:
        loss = model.fine_loss(*given, part_loss, targets, coarse, inputs.region)
        return {"fine": Term(loss, examples)}
    _, logits = model.fine_stage(*given, coarse, inputs.region, train=trained)
    own = map(part_loss, range(len(logits)), _labelled(logits, inputs), targets)
    terms = {"fine": Term(sum(own, jnp.zeros(())), examples)}
    if ema_variables is not None and coarse is not None:
        distances = distillation.distillation_losses(
            model, ema_variables, inputs, coarse, theta, logits, stage.part_weights
        )
        all_examples = jnp.float32(inputs.frame.shape[0])
        terms |= {name: Term(mean, all_examples) for name, mean in distances.items()}
    return terms


def _windows(
    model: STNiCNN, coarse: CoarseOutput | None, inputs: Inputs, keys: jax.Array, stage: Stage
) -> jax.Array:
    """Returns the windows that patches are cropped from: the true ones, jittered, or predicted."""
    frame_size = inputs.frame.shape[1:3]
    if stage.true_windows or coarse is None:
        return jitter_windows(inputs.theta, keys, stage.jitter, frame_size[0])
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
    logits, labels, sets = coarse.logits, inputs.coarse_labels, inputs.label_sets
    loss = losses.PIXEL_LOSSES[stage.coarse_loss](logits, labels, sets)
    # At stride 1 the global logits are part of `logits`, and would count twice.
    if coarse.global_logits is not None and model.config.coarse_stride > 1:
        anatomy = model.config.anatomy
        loss += losses.global_cross_entropy(
            coarse.global_logits,
            inputs.global_labels,
            anatomy.global_ids,
            sets or LabelSets(anatomy.num_classes),
        )
    if weight := stage.consensus.coarse:
        loss += weight * consensus_share * _consensus(logits, labels, sets, stage)
    if weight := stage.edges.coarse:
        loss += weight * losses.edge_cross_entropy(logits, labels, sets)
    if weight := stage.edges.task:
        if coarse.edge_logits is None:
            raise ValueError("the stage has an edge task, but the model has no edge head")
        loss += weight * losses.edge_task_loss(coarse.edge_logits, labels, sets)
    return loss


class PartTarget(NamedTuple):
    """What the loss of a part is computed from, beside its logits.

    Attributes:
        labels: Labels of its patches, (batch, height, width).
        consensus_share: Factor of the weight of the consensus loss.
        has_parts: Whether each example has labels of parts, (batch,); None if all have.
        num_with_parts: Number of those that have, the mean over the devices.
    """

    labels: jax.Array
    consensus_share: jax.Array | float
    has_parts: jax.Array | None
    num_with_parts: jax.Array | None


def _part_losses(
    model: STNiCNN,
    theta: jax.Array,
    inputs: Inputs,
    stage: Stage,
    consensus_share: jax.Array | float,
) -> tuple[PartLoss, list[PartTarget]]:
    """Returns the loss of a part, a function, and the target of each part."""
    theta, inputs = _labelled(theta, inputs), _labelled(inputs, inputs)
    anatomy, sets = model.config.anatomy, inputs.label_sets
    labels = ops.crop_part_labels(
        inputs.labels, theta, model.config.patch_sizes, anatomy, sets, axis_aligned=True
    )
    num_with_parts = None
    if inputs.has_parts is not None:
        num_with_parts = jnp.sum(inputs.has_parts, dtype=jnp.float32)
        if model.axis_name is not None:
            num_with_parts = jax.lax.pmean(num_with_parts, model.axis_name)
    part_loss = partial(_part_loss, stage=stage, label_sets=sets)
    others = consensus_share, inputs.has_parts, num_with_parts
    return part_loss, [PartTarget(own, *others) for own in labels]


def _part_loss(
    part: int,
    logits: jax.Array,
    target: PartTarget,
    *,
    stage: Stage,
    label_sets: LabelSets | None,
) -> jax.Array:
    """Returns the weighted loss of a part."""
    labels, has_parts, num_labels = target.labels, target.has_parts, logits.shape[-1]
    # In a patch, labels are single ones, or the last, any of them.
    sets = LabelSets(num_labels, (tuple(range(num_labels)),)) if label_sets else None
    if has_parts is not None:
        labels = jnp.where(has_parts[:, None, None], labels, num_labels)
    loss = losses.cross_entropy(logits, labels, sets)
    if weight := stage.consensus.fine:
        loss += weight * target.consensus_share * _consensus(logits, labels, sets, stage)
    if weight := stage.edges.fine:
        loss += weight * losses.edge_cross_entropy(logits, labels, sets)
    if target.num_with_parts is not None:
        # The mean over the examples that count. It is divided by their number on all devices here,
        # not in `weighted_sum`: gradients, which BatchNorm averages over the devices, are computed
        # together with the loss, and can be scaled later only by what is the same on all devices.
        loss *= len(labels) / jnp.maximum(target.num_with_parts, 1e-6)
    return loss if stage.part_weights is None else loss * stage.part_weights[part]


def _consensus(
    logits: jax.Array, labels: jax.Array, label_sets: LabelSets | None, stage: Stage
) -> jax.Array:
    connected = stage.consensus.regions == "connected"
    return mean_consensus_loss(logits, labels, connected, label_sets)
