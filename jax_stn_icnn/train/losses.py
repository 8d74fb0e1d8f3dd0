"""Losses of the stages and of self-distillation.

A loss of pixels takes labels that are sets of classes, if `label_sets` is given: the likelihood of
a label is the sum of the probabilities of its classes (partial-label learning; Cour, Sapp and
Taskar, 2011, describe the problem). Without `label_sets` a label is one class.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_stn_icnn.checks import check_labels, check_logits, check_same_batch, check_shape
from jax_stn_icnn.label_sets import LabelSets

# Distance of a pixel from an edge between labels, in pixels, up to which it is near the edge.
EDGE_DISTANCE = 2


def cross_entropy(
    logits: jax.Array, label_map: jax.Array, label_sets: LabelSets | None = None
) -> jax.Array:
    """Returns the mean cross entropy over pixels.

    Args:
        logits: (batch, height, width, classes).
        label_map: Labels, integers (batch, height, width).
        label_sets: The classes of each label; None if labels are class ids.

    Returns:
        A float32 scalar; NaN if a label is unknown. A pixel whose label contains all classes
        contributes 0, and no gradient.

    Raises:
        ValueError: Shapes do not match, or, outside of jit, a label is unknown.
    """
    num_labels = _check(logits, label_map, label_sets)
    # An unknown label has no one-hot code, but must not count as a pixel without a loss.
    known = (label_map >= 0) & (label_map < num_labels)
    loss = _pixel_cross_entropy(logits, label_map, label_sets)
    return jnp.mean(jnp.where(known, loss, jnp.nan))


def binary_cross_entropy(
    logits: jax.Array, label_map: jax.Array, label_sets: LabelSets | None = None
) -> jax.Array:
    """Returns the paper's averaged binary cross entropy (eq. 16), over pixels and classes.

    Args:
        logits: (batch, height, width, classes); each class's probability is its sigmoid.
        label_map: Labels, integers (batch, height, width).
        label_sets: The classes of each label; None if labels are class ids. Of a label of several
            classes only those that it excludes contribute.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: Shapes do not match, or, outside of jit, a label is unknown.
    """
    _check(logits, label_map, label_sets)
    hot = jax.nn.one_hot(label_map, logits.shape[-1])
    loss = optax.losses.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), hot)
    if label_sets is not None:
        union = (label_map >= logits.shape[-1])[..., None]
        loss = jnp.where(union & _members(label_map, label_sets), 0, loss)
    return jnp.mean(loss)


def balanced_cross_entropy(
    logits: jax.Array, label_map: jax.Array, label_sets: LabelSets | None = None
) -> jax.Array:
    """Returns the cross entropy with each label weighted by the root of its number of pixels.

    Ours: if skin and hair are labelled, brows and eyes are so few of the pixels that the plain mean
    learns them last.

    Args:
        logits: (batch, height, width, classes).
        label_map: Labels, integers (batch, height, width).
        label_sets: The classes of each label; None if labels are class ids.

    Returns:
        A float32 scalar: the mean over each image's pixels with weights 1 / sqrt(pixels of the
        label), then over images. Pixels whose label contains all classes do not count.

    Raises:
        ValueError: Shapes do not match, or, outside of jit, a label is unknown.
    """
    num_labels = _check(logits, label_map, label_sets)
    if label_sets is None:
        # One-hot: as in `_pixel_cross_entropy`.
        hot = label_map[..., None] == jnp.arange(num_labels)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    else:
        counted = [label for label in range(num_labels) if label != label_sets.ignored]
        hot = label_map[..., None] == jnp.array(counted)
        log_probs = -_pixel_cross_entropy(logits, label_map, label_sets)[..., None]
    count = jnp.sum(hot, axis=(1, 2))
    weight = jnp.where(count > 0, 1 / jnp.sqrt(jnp.maximum(count, 1)), 0)
    loss = -jnp.sum(jnp.where(hot, log_probs, 0), axis=(1, 2))
    total = jnp.sum(count * weight, axis=-1)
    if label_sets is not None:  # All pixels of an image may be unknown.
        total = jnp.maximum(total, 1)
    return jnp.mean(jnp.sum(loss * weight, axis=-1) / total)


def smooth_l1(theta: jax.Array, target: jax.Array, present: jax.Array) -> jax.Array:
    """Returns the localizer's loss: quadratic below one, linear above, over present parts.

    Args:
        theta: The predicted windows, (batch, parts, 2, 3).
        target: The true windows, of the same shape, as `geometry.theta_target` returns them.
        present: Which parts are present, bool (batch, parts).

    Returns:
        A float32 scalar: the mean over the six entries of every present part.

    Raises:
        ValueError: Shapes do not match.
    """
    check_shape("theta", theta, ("batch", "parts", 2, 3))
    check_shape("target", target, theta.shape)
    check_shape("present", present, theta.shape[:2])
    check_same_batch(theta=theta, target=target, present=present)
    per_part = jnp.mean(optax.losses.huber_loss(theta, target), axis=(-2, -1))
    weight = present.astype(per_part.dtype)
    return jnp.sum(per_part * weight) / jnp.maximum(jnp.sum(weight), 1)


def global_cross_entropy(
    logits: jax.Array, label_map: jax.Array, global_ids: tuple[int, ...], label_sets: LabelSets
) -> jax.Array:
    """Returns the mean cross entropy over the pixels of the global classes.

    Pixels of part classes do not count, since the parts' scores replace the global ones there, and
    neither do pixels that may belong to any global class.

    Args:
        logits: Logits of the global classes, channels first, (batch, global_ids, height, width).
        label_map: Labels, integers (batch, height, width).
        global_ids: Ids of the global classes, in the order of the logits.
        label_sets: The classes of each label.

    Returns:
        A float32 scalar: the mean over each image's pixels, then over images; an image without such
        pixels contributes 0.

    Raises:
        ValueError: Shapes do not match, or, outside of jit, a label is unknown.
    """
    check_shape("logits", logits, ("batch", len(global_ids), "height", "width"))
    check_shape("label_map", label_map, (logits.shape[0], *logits.shape[2:]))
    check_labels("label_map", label_map, label_sets.num_labels)
    logits = logits.astype(jnp.float32)
    # The global classes of each label. Masks instead of indices: as in `_pixel_cross_entropy`.
    members = label_sets.members[:, list(global_ids)]
    singles = np.flatnonzero(members.sum(axis=1) == 1)
    place = np.full(label_sets.num_labels, -1, np.int32)
    place[singles] = members[singles].argmax(axis=1)
    index = jnp.asarray(place)[label_map]
    hot = index[:, None] == jnp.arange(len(global_ids))[:, None, None]
    picked = jnp.sum(jnp.where(hot, logits, 0), axis=1)
    counts = index >= 0
    several = np.flatnonzero((members.sum(axis=1) > 1) & ~members.all(axis=1))
    for label in several:
        here = label_map == label
        own = jax.nn.logsumexp(logits[:, members[label]], axis=1)
        picked, counts = jnp.where(here, own, picked), counts | here
    loss = jnp.where(counts, jax.nn.logsumexp(logits, axis=1) - picked, 0)
    total, pixels = jnp.sum(loss, axis=(1, 2)), jnp.sum(counts, axis=(1, 2))
    return jnp.mean(total / jnp.maximum(pixels, 1))


def near_edges(label_map: jax.Array, distance: int = EDGE_DISTANCE) -> jax.Array:
    """Returns which pixels are near an edge between labels.

    Args:
        label_map: Integers (batch, height, width).
        distance: 0 for the pixels that have a neighbour of another label beside, above or below
            them; each further pixel adds their neighbours, diagonal ones included.

    Returns:
        bool (batch, height, width).

    Raises:
        ValueError: The shape does not match.
    """
    check_shape("label_map", label_map, ("batch", "height", "width"))
    edge = jnp.zeros(label_map.shape, bool)
    for axis in (1, 2):
        differ = jnp.diff(label_map, axis=axis) != 0
        for side in ((1, 0), (0, 1)):
            padding = [(0, 0)] * 3
            padding[axis] = side
            edge |= jnp.pad(differ, padding)
    width = 2 * distance + 1
    return jax.lax.reduce_window(
        edge, False, jax.lax.bitwise_or, (1, width, width), (1, 1, 1), "SAME"
    )


def edge_cross_entropy(
    logits: jax.Array, label_map: jax.Array, label_sets: LabelSets | None = None
) -> jax.Array:
    """Returns the mean cross entropy over the pixels near an edge between labels.

    Added to a loss over all pixels, it increases their weight, after Han and Yoon (2024); which
    pixels, and the form, are ours.

    Args:
        logits: (batch, height, width, classes).
        label_map: Labels, integers (batch, height, width).
        label_sets: The classes of each label; None if labels are class ids.

    Returns:
        A float32 scalar: the mean over each image's pixels within EDGE_DISTANCE, then over images;
        an image without an edge contributes 0.

    Raises:
        ValueError: Shapes do not match, or, outside of jit, a label is unknown.
    """
    _check(logits, label_map, label_sets)
    near = near_edges(label_map)
    pixel_loss = _pixel_cross_entropy(logits, label_map, label_sets)
    loss = jnp.sum(jnp.where(near, pixel_loss, 0), axis=(1, 2))
    return jnp.mean(loss / jnp.maximum(jnp.sum(near, axis=(1, 2)), 1))


def edge_task_loss(
    edge_logits: jax.Array, label_map: jax.Array, label_sets: LabelSets | None = None
) -> jax.Array:
    """Returns the binary cross entropy of the edge task, balanced between edges and other pixels.

    The task is Han and Yoon's (2024), the balance Xie and Tu's (Holistically-Nested Edge Detection,
    2015).

    Args:
        edge_logits: Logits of a pixel lying on an edge between labels, (batch, height, width).
        label_map: Labels, integers (batch, height, width).
        label_sets: The classes of each label; None if labels are class ids. Pixels of a label of
            several classes, and their neighbours, do not count.

    Returns:
        A float32 scalar: half the mean over each image's edge pixels plus half that over its other
        pixels, then the mean over images.

    Raises:
        ValueError: Shapes do not match.
    """
    check_shape("edge_logits", edge_logits, label_map.shape)
    edge = near_edges(label_map, 0)
    other = ~edge
    if label_sets is not None:
        union = label_map >= label_sets.num_classes
        known = ~jax.lax.reduce_window(
            union, False, jax.lax.bitwise_or, (1, 3, 3), (1, 1, 1), "SAME"
        )
        edge, other = edge & known, other & known
    loss = optax.losses.sigmoid_binary_cross_entropy(edge_logits.astype(jnp.float32), edge)

    def mean_over(pixels: jax.Array) -> jax.Array:
        total = jnp.sum(jnp.where(pixels, loss, 0), axis=(1, 2))
        return total / jnp.maximum(jnp.sum(pixels, axis=(1, 2)), 1)

    return jnp.mean(mean_over(edge) + mean_over(other)) / 2


def distillation_loss(logits: jax.Array, teacher_logits: jax.Array) -> jax.Array:
    """Returns the mean Kullback-Leibler divergence from a teacher's distribution over labels.

    Hinton et al. (2015), without a temperature.

    Args:
        logits: Logits of the network that is trained, (..., labels).
        teacher_logits: Logits of the teacher, of the same shape; they receive no gradient.

    Returns:
        A float32 scalar, the mean over pixels.

    Raises:
        ValueError: Shapes do not match.
    """
    check_shape("teacher_logits", teacher_logits, logits.shape)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    target = jax.nn.log_softmax(jax.lax.stop_gradient(teacher_logits).astype(jnp.float32))
    return jnp.mean(optax.losses.kl_divergence_with_log_targets(log_probs, target))


PIXEL_LOSSES = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "balanced_cross_entropy": balanced_cross_entropy,
}


def _check(logits: jax.Array, label_map: jax.Array, label_sets: LabelSets | None) -> int:
    """Checks logits and labels; returns the number of labels."""
    if label_sets is None:
        check_logits(logits, label_map)
        return logits.shape[-1]
    check_shape("logits", logits, ("batch", "height", "width", label_sets.num_classes))
    check_shape("label_map", label_map, logits.shape[:3])
    check_labels("label_map", label_map, label_sets.num_labels)
    return label_sets.num_labels


def _pixel_cross_entropy(
    logits: jax.Array, label_map: jax.Array, label_sets: LabelSets | None = None
) -> jax.Array:
    """Returns the cross entropy of each pixel, (batch, height, width)."""
    if label_sets is not None:
        return _pixel_set_loss(logits, label_map, label_sets)
    # One-hot: with integer labels, optax gathers, which is much slower on a CPU, as is the scatter
    # of the gradient.
    hot = jax.nn.one_hot(label_map, logits.shape[-1])
    return optax.losses.softmax_cross_entropy(logits.astype(jnp.float32), hot)


def _pixel_set_loss(logits: jax.Array, label_map: jax.Array, label_sets: LabelSets) -> jax.Array:
    """Returns -log of the sum of the probabilities of each pixel's classes."""
    members = _members(label_map, label_sets)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    own = jnp.where(members, log_probs, -jnp.inf)
    highest = jax.lax.stop_gradient(jnp.max(own, axis=-1))
    # For a single class the sum is exactly 1, and the loss that of `_pixel_cross_entropy`.
    loss = -(highest + jnp.log(jnp.sum(jnp.exp(own - highest[..., None]), axis=-1)))
    if label_sets.ignored is None:
        return loss
    return jnp.where(label_map == label_sets.ignored, 0, loss)


def _members(label_map: jax.Array, label_sets: LabelSets) -> jax.Array:
    """Returns which classes belong to each pixel's label, bool (batch, height, width, classes)."""
    # A product: a gather of rows is slow on accelerators.
    hot = jax.nn.one_hot(label_map, label_sets.num_labels)
    return hot @ label_sets.members.astype(np.float32) > 0.5
