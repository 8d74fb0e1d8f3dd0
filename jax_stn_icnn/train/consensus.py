"""Structure via consensus: the pixels of each label are predicted as one region, in agreement.

Masi, Mathai and AbdAlmageed (2020).
"""

import jax
import jax.numpy as jnp

from jax_stn_icnn.checks import check_logits

# Weights of the paper: of the likelihood of a region's mean, and of the disagreement in a region.
ALPHA = 10.0
BETA = 5.0


def consensus_loss(
    logits: jax.Array, label_map: jax.Array, alpha: float = ALPHA, beta: float = BETA
) -> jax.Array:
    """Returns the consensus loss of a batch, as in the original code.

    The pixels of a label are one region throughout the batch. For each region that has pixels,

        alpha * NLL(mean probability) + beta * KL(mean probability || a pixel's probability),

    averaged over the regions. Each image has a mean probability of its own. The NLL is the mean
    over all images, zero in an image without the label; the KL is the mean over all pixels of the
    region and over the labels.

    Args:
        logits: (batch, height, width, labels).
        label_map: Integers below `labels`, (batch, height, width).
        alpha: Weight of the likelihood.
        beta: Weight of the disagreement.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: Shapes do not match, or a label is outside 0..labels - 1.
    """
    check_logits(logits, label_map)
    per_image = jax.vmap(_region_terms)(logits.astype(jnp.float32), label_map)
    count, likelihood, disagreement = (jnp.sum(term, axis=0) for term in per_image)
    batch, num_labels = logits.shape[0], logits.shape[-1]
    disagreement = disagreement / (jnp.maximum(count, 1) * num_labels)
    per_region = alpha * likelihood / batch + beta * disagreement
    return jnp.sum(per_region) / jnp.sum(count > 0)


def mean_consensus_loss(logits: jax.Array, label_map: jax.Array) -> jax.Array:
    """Returns the mean over images of the `consensus_loss` of each image.

    Every region of an image has the same weight, and the loss does not depend on how the devices
    share a batch. This is ours; the original code takes a batch as one image.

    Args:
        logits: (batch, height, width, labels).
        label_map: Integers below `labels`, (batch, height, width).

    Returns:
        A float32 scalar.

    Raises:
        ValueError: Shapes do not match, or a label is outside 0..labels - 1.
    """
    check_logits(logits, label_map)
    per_image = jax.vmap(consensus_loss)(logits[:, None], label_map[:, None])
    return jnp.mean(per_image)


def _region_terms(
    logits: jax.Array, label_map: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns pixel count, NLL and summed KL of each label in one image; zero without pixels."""
    num_labels = logits.shape[-1]
    log_probs = jax.nn.log_softmax(logits).reshape(-1, num_labels)
    regions = label_map.ravel()

    def total(values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values, regions, num_segments=num_labels)

    count = total(jnp.ones(regions.size))
    present = count > 0
    # The logarithm of the mean is relative to the region's highest value, since all of its
    # probabilities may underflow. Absent labels have a harmless value inside the logarithm, so that
    # no infinity reaches the gradient.
    highest = jax.lax.stop_gradient(
        jax.ops.segment_max(log_probs, regions, num_segments=num_labels)
    )
    highest = jnp.where(present[:, None], highest, 0.0)
    relative = total(jnp.exp(log_probs - highest[regions])) / jnp.maximum(count, 1)[:, None]
    log_mean = highest + jnp.log(jnp.where(present[:, None], relative, 1.0))
    mean = jnp.where(present[:, None], jnp.exp(log_mean), 0.0)
    likelihood = -jnp.diagonal(log_mean)
    disagreement = jnp.sum(mean * (count[:, None] * log_mean - total(log_probs)), axis=-1)
    return count, likelihood, disagreement
