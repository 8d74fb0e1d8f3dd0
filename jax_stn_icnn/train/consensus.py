"""Structure via consensus: the pixels of each region are predicted as one, in agreement.

Masi, Mathai and AbdAlmageed (2020).
"""

import functools

import jax
import jax.numpy as jnp

from jax_stn_icnn.checks import check_labels, check_shape
from jax_stn_icnn.label_sets import LabelSets

# Weights of the paper: of the likelihood of a region's mean, and of the disagreement in a region.
ALPHA = 10.0
BETA = 5.0


def connected_regions(label_map: jax.Array) -> jax.Array:
    """Returns the number of each pixel's 4-connected region of one label.

    Every pixel takes the smallest index among its neighbors of the same label until nothing
    changes. It also jumps to the index that its region's first pixel has found, so that long
    regions need few iterations.

    Args:
        label_map: Integers (batch, height, width).

    Returns:
        int32 (batch, height, width): 0, 1, 2, ... in each image, ordered by the regions' first
        pixels.

    Raises:
        ValueError: The shape does not match.
    """
    check_shape("label_map", label_map, ("batch", "height", "width"))
    return jax.vmap(_connected_regions)(label_map)


def _connected_regions(label_map: jax.Array) -> jax.Array:
    start = jnp.arange(label_map.size, dtype=jnp.int32).reshape(label_map.shape)

    def spread(region: jax.Array) -> jax.Array:
        for axis in (0, 1):
            for step in (1, -1):
                near = jnp.roll(region, step, axis)
                same = jnp.roll(label_map, step, axis) == label_map
                index = jax.lax.broadcasted_iota(jnp.int32, label_map.shape, axis)
                edge = index == (0 if step == 1 else label_map.shape[axis] - 1)
                region = jnp.where(same & ~edge, jnp.minimum(region, near), region)
        return region.ravel()[region]

    def changes(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.any(state[0] != state[1])

    _, region = jax.lax.while_loop(
        changes, lambda state: (state[1], spread(state[1])), (start, spread(start))
    )
    rank = jnp.cumsum((region == start).ravel()) - 1
    return rank[region].astype(jnp.int32)


def consensus_loss(
    logits: jax.Array,
    label_map: jax.Array,
    regions: jax.Array | None = None,
    alpha: float = ALPHA,
    beta: float = BETA,
    label_sets: LabelSets | None = None,
) -> jax.Array:
    """Returns the consensus loss of a batch, as in the original code.

    Pixels of one region number are one region throughout the batch. For each region,

        alpha * NLL(mean probability) + beta * KL(mean probability || a pixel's probability),

    averaged over the regions. Each image has a mean probability of its own. The NLL is the mean
    over all images, zero in an image without the region; the KL is the mean over all pixels of the
    region and over the labels.

    Args:
        logits: (batch, height, width, classes).
        label_map: Labels, integers (batch, height, width).
        regions: Region numbers in 0..height * width - 1, integers (batch, height, width), each of
            one label in each image, such as those of `connected_regions`; None for one region for
            each label.
        alpha: Weight of the likelihood.
        beta: Weight of the disagreement.
        label_sets: The classes of each label; None if labels are class ids. Regions of a label of
            several classes do not count.

    Returns:
        A float32 scalar; 0 if no region counts.

    Raises:
        ValueError: Shapes do not match, or a label is unknown.
    """
    check_shape("logits", logits, ("batch", "height", "width", "classes"))
    check_shape("label_map", label_map, logits.shape[:3])
    num_labels = logits.shape[-1] if label_sets is None else label_sets.num_labels
    check_labels("label_map", label_map, num_labels)
    num_regions = num_labels if regions is None else logits.shape[1] * logits.shape[2]
    regions = label_map if regions is None else regions
    check_shape("regions", regions, logits.shape[:3])
    per_image = jax.vmap(_region_terms, in_axes=(0, 0, 0, None))(
        logits.astype(jnp.float32), label_map, regions, num_regions
    )
    count, likelihood, disagreement = (jnp.sum(term, axis=0) for term in per_image)
    batch, num_classes = logits.shape[0], logits.shape[-1]
    disagreement = disagreement / (jnp.maximum(count, 1) * num_classes)
    per_region = alpha * likelihood / batch + beta * disagreement
    return jnp.sum(per_region) / jnp.maximum(jnp.sum(count > 0), 1)


def mean_consensus_loss(
    logits: jax.Array,
    label_map: jax.Array,
    connected: bool = False,
    label_sets: LabelSets | None = None,
) -> jax.Array:
    """Returns the mean over images of the `consensus_loss` of each image.

    Every region of an image has the same weight, and the loss does not depend on how the devices
    share a batch. This is ours; the original code takes a batch as one image.

    Args:
        logits: (batch, height, width, classes).
        label_map: Labels, integers (batch, height, width).
        connected: Whether each connected region of a label is one, or all pixels of a label.
        label_sets: As for `consensus_loss`.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: Shapes do not match, or a label is unknown.
    """
    check_shape("logits", logits, ("batch", "height", "width", "classes"))
    check_shape("label_map", label_map, logits.shape[:3])
    regions = connected_regions(label_map)[:, None] if connected else None
    loss = functools.partial(consensus_loss, label_sets=label_sets)
    per_image = jax.vmap(loss)(logits[:, None], label_map[:, None], regions)
    return jnp.mean(per_image)


def _region_terms(
    logits: jax.Array, label_map: jax.Array, regions: jax.Array, num_regions: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns pixel count, NLL and summed KL of each region of one image.

    All are zero for a region without pixels, and for one of a label of several classes.
    """
    num_classes = logits.shape[-1]
    log_probs = jax.nn.log_softmax(logits).reshape(-1, num_classes)
    labels, regions = label_map.ravel().astype(jnp.int32), regions.ravel()

    def total(values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values, regions, num_segments=num_regions)

    # Labels of several classes follow the single ones.
    count = total((labels < num_classes).astype(jnp.float32))
    present = count > 0
    # The logarithm of the mean is relative to the region's highest value, since all of its
    # probabilities may underflow. Absent regions have a harmless value inside the logarithm, so
    # that no infinity reaches the gradient.
    highest = jax.lax.stop_gradient(
        jax.ops.segment_max(log_probs, regions, num_segments=num_regions)
    )
    highest = jnp.where(present[:, None], highest, 0.0)
    relative = total(jnp.exp(log_probs - highest[regions])) / jnp.maximum(count, 1)[:, None]
    log_mean = highest + jnp.log(jnp.where(present[:, None], relative, 1.0))
    mean = jnp.where(present[:, None], jnp.exp(log_mean), 0.0)
    label = jax.ops.segment_max(labels, regions, num_segments=num_regions)
    label = jnp.where(present, label, 0)
    likelihood = -jnp.take_along_axis(log_mean, label[:, None], axis=1)[:, 0]
    disagreement = jnp.sum(mean * (count[:, None] * log_mean - total(log_probs)), axis=-1)
    return count, likelihood, disagreement
