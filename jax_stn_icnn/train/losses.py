"""Losses of the four stages, and of self-distillation. Means over what takes part."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.checks import check_labels, check_logits, check_same_batch, check_shape


def cross_entropy(logits: jax.Array, label_map: jax.Array) -> jax.Array:
    """Mean cross entropy over pixels.

    Args:
        logits: (batch, height, width, labels).
        label_map: integers below `labels`, (batch, height, width).

    Returns:
        A float32 scalar.

    Raises:
        ValueError: shapes do not fit, or, outside of jit, a label is outside 0..labels - 1.
    """
    check_logits(logits, label_map)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    # Chosen by comparison: looking each pixel's label up, and scattering its gradient, costs more.
    true = label_map[..., None] == jnp.arange(logits.shape[-1])
    picked = jnp.sum(jnp.where(true, log_probs, 0), axis=-1)
    # A label that is none must not pass for one without a loss.
    known = (label_map >= 0) & (label_map < logits.shape[-1])
    return jnp.mean(jnp.where(known, -picked, jnp.nan))


def binary_cross_entropy(logits: jax.Array, label_map: jax.Array) -> jax.Array:
    """The paper's averaged binary cross entropy (eq. 16), over pixels and labels.

    Args:
        logits: (batch, height, width, labels); each label's sigmoid is its probability.
        label_map: integers below `labels`, (batch, height, width).

    Returns:
        A float32 scalar.

    Raises:
        ValueError: shapes do not fit, or, outside of jit, a label is outside 0..labels - 1.
    """
    check_logits(logits, label_map)
    logits = logits.astype(jnp.float32)
    truth = jax.nn.one_hot(label_map, logits.shape[-1])
    loss = jnp.maximum(logits, 0) - logits * truth + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return jnp.mean(loss)


def balanced_cross_entropy(logits: jax.Array, label_map: jax.Array) -> jax.Array:
    """Cross entropy in which each class of an image counts by the root of its pixels' number.

    Ours: where skin and hair are labelled, brows and eyes are so few of the pixels that the plain
    mean learns them last.

    Args:
        logits: (batch, height, width, labels).
        label_map: integers below `labels`, (batch, height, width).

    Returns:
        A float32 scalar: of each image the mean with weights 1 / sqrt(pixels of the class), then
        the mean over images.

    Raises:
        ValueError: shapes do not fit, or, outside of jit, a label is outside 0..labels - 1.
    """
    check_logits(logits, label_map)
    # One-hot: as in `global_cross_entropy`.
    hot = label_map[..., None] == jnp.arange(logits.shape[-1])
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    count = jnp.sum(hot, axis=(1, 2))
    weight = jnp.where(count > 0, 1 / jnp.sqrt(jnp.maximum(count, 1)), 0)
    loss = -jnp.sum(jnp.where(hot, log_probs, 0), axis=(1, 2))
    per_image = jnp.sum(loss * weight, axis=-1) / jnp.sum(count * weight, axis=-1)
    return jnp.mean(per_image)


def smooth_l1(theta: jax.Array, target: jax.Array, present: jax.Array) -> jax.Array:
    """The localizer's loss: quadratic below one, linear above, over the parts that are there.

    Args:
        theta: predicted, (batch, parts, 2, 3).
        target: of `geometry.theta_target`, (batch, parts, 2, 3).
        present: which parts count, bool (batch, parts).

    Returns:
        A float32 scalar: the mean over the six entries of every part that counts.

    Raises:
        ValueError: shapes do not fit.
    """
    check_shape("theta", theta, ("batch", "parts", 2, 3))
    check_shape("target", target, theta.shape)
    check_shape("present", present, theta.shape[:2])
    check_same_batch(theta=theta, target=target, present=present)
    error = jnp.abs(theta - target)
    per_part = jnp.mean(jnp.where(error < 1, 0.5 * error**2, error - 0.5), axis=(-2, -1))
    weight = present.astype(per_part.dtype)
    return jnp.sum(per_part * weight) / jnp.maximum(jnp.sum(weight), 1)


def fine_losses(
    fine_logits: Sequence[jax.Array], part_labels: jax.Array | Sequence[jax.Array]
) -> jax.Array:
    """Cross entropy of each part's patch.

    Args:
        fine_logits: for each part (batch, height, width, labels).
        part_labels: of `sampling.crop_part_labels`, (batch, parts, height, width), or for each part
            (batch, height, width).

    Returns:
        float32 (parts,). Weigh and sum them: the original's weights are all one.

    Raises:
        ValueError: shapes do not fit.
    """
    if len(part_labels) != len(fine_logits):
        raise ValueError(
            f"part_labels are for {len(part_labels)} parts, but logits for {len(fine_logits)}"
        )
    return jnp.stack(
        [
            cross_entropy(logits, patch_labels)
            for logits, patch_labels in zip(fine_logits, part_labels, strict=True)
        ]
    )


def global_cross_entropy(
    logits: jax.Array, label_map: jax.Array, global_ids: tuple[int, ...], num_classes: int
) -> jax.Array:
    """Mean cross entropy over the pixels of classes without a window.

    What parts are pasted over says nothing: pixels of other classes do not count.

    Args:
        logits: of the classes without a window, channels first, (batch, global_ids, height, width).
        label_map: class ids, integers (batch, height, width).
        global_ids: the ids of those classes, in the order of the logits.
        num_classes: how many classes there are.

    Returns:
        A float32 scalar: the mean over pixels of each image, then over images; one without any
        such pixel gives zero.

    Raises:
        ValueError: shapes do not fit, or, outside of jit, a label is no class.
    """
    check_shape("logits", logits, ("batch", len(global_ids), "height", "width"))
    check_shape("label_map", label_map, (logits.shape[0], *logits.shape[2:]))
    check_labels("label_map", label_map, num_classes)
    place = np.full(num_classes, -1, np.int32)
    place[list(global_ids)] = np.arange(len(global_ids))
    index = jnp.asarray(place)[label_map]
    # One-hot instead of a look-up of each pixel: on CPU that, and its gradient, are much slower.
    hot = index[:, None] == jnp.arange(len(global_ids))[:, None, None]
    logits = logits.astype(jnp.float32)
    picked = jnp.sum(jnp.where(hot, logits, 0), axis=1)
    counts = index >= 0
    loss = jnp.where(counts, jax.nn.logsumexp(logits, axis=1) - picked, 0)
    total, pixels = jnp.sum(loss, axis=(1, 2)), jnp.sum(counts, axis=(1, 2))
    return jnp.mean(total / jnp.maximum(pixels, 1))


def near_edges(label_map: jax.Array, within: int) -> jax.Array:
    """The pixels near an edge between labels.

    Args:
        label_map: integers (batch, height, width).
        within: 0 takes the pixels with one of another label beside, above or below them; each step
            more their neighbours too, diagonal ones as well.

    Returns:
        bool (batch, height, width).

    Raises:
        ValueError: the shape does not fit.
    """
    check_shape("label_map", label_map, ("batch", "height", "width"))
    edge = jnp.zeros(label_map.shape, bool)
    for axis in (1, 2):
        differ = jnp.diff(label_map, axis=axis) != 0
        for before in ((1, 0), (0, 1)):
            padding = [(0, 0)] * 3
            padding[axis] = before
            edge |= jnp.pad(differ, padding)
    side = 2 * within + 1
    return jax.lax.reduce_window(
        edge, False, jax.lax.bitwise_or, (1, side, side), (1, 1, 1), "SAME"
    )


def edge_cross_entropy(logits: jax.Array, label_map: jax.Array, within: int) -> jax.Array:
    """Mean cross entropy over the pixels near an edge between labels.

    Beside a loss over all pixels it has those near edges weigh more, after Han and Yoon (2024);
    which pixels, and the form, are ours.

    Args:
        logits: (batch, height, width, labels).
        label_map: integers below `labels`, (batch, height, width).
        within: as for `near_edges`.

    Returns:
        A float32 scalar: the mean over such pixels of each image, then over images; one without an
        edge gives zero.

    Raises:
        ValueError: shapes do not fit, or, outside of jit, a label is outside 0..labels - 1.
    """
    check_logits(logits, label_map)
    near = near_edges(label_map, within)
    # One-hot: as in `global_cross_entropy`.
    hot = label_map[..., None] == jnp.arange(logits.shape[-1])
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    loss = -jnp.sum(jnp.where(hot & near[..., None], log_probs, 0), axis=(1, 2, 3))
    return jnp.mean(loss / jnp.maximum(jnp.sum(near, axis=(1, 2)), 1))


def edge_task_loss(edge_logits: jax.Array, label_map: jax.Array) -> jax.Array:
    """Binary cross entropy of the edge task, edges and all else weighing alike.

    The task is Han and Yoon's (2024), the balance that of Xie and Tu (Holistically-Nested Edge
    Detection, 2015).

    Args:
        edge_logits: of a pixel's lying on an edge between labels, (batch, height, width).
        label_map: integers (batch, height, width).

    Returns:
        A float32 scalar: half the mean over the edge's pixels of each image and half that over the
        others, then the mean over images.

    Raises:
        ValueError: shapes do not fit.
    """
    check_shape("edge_logits", edge_logits, label_map.shape)
    edge = near_edges(label_map, 0)
    loss = jax.nn.softplus(jnp.where(edge, -edge_logits, edge_logits).astype(jnp.float32))

    def mean_over(which: jax.Array) -> jax.Array:
        total = jnp.sum(jnp.where(which, loss, 0), axis=(1, 2))
        return total / jnp.maximum(jnp.sum(which, axis=(1, 2)), 1)

    return jnp.mean(mean_over(edge) + mean_over(~edge)) / 2


def distillation_loss(logits: jax.Array, answers: jax.Array) -> jax.Array:
    """How far a network's distribution over labels is from another one's answers.

    Hinton et al. (2015), without a temperature.

    Args:
        logits: of the network that learns, (..., labels).
        answers: logits of the other one, of the same shape; they get no gradient.

    Returns:
        A float32 scalar: the mean over pixels of the Kullback-Leibler divergence from the answers.

    Raises:
        ValueError: shapes do not fit.
    """
    check_shape("answers", answers, logits.shape)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    wanted = jax.nn.log_softmax(jax.lax.stop_gradient(answers).astype(jnp.float32))
    return jnp.mean(jnp.sum(jnp.exp(wanted) * (wanted - log_probs), axis=-1))
