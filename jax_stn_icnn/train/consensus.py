"""Structure via consensus: each region is to be right as a whole and to agree with itself.

Masi, Mathai and AbdAlmageed (2020).
"""

import functools

import jax
import jax.numpy as jnp

from jax_stn_icnn.checks import check_logits, check_shape


def connected_regions(label_map: jax.Array) -> jax.Array:
    """Numbers the connected regions of one label, compiled: neighbours share an edge.

    Every pixel takes the smallest index among its neighbours of the same label until nothing
    changes, jumping along what it has found, so that long regions settle in few rounds.

    Args:
        label_map: integers of shape (batch, height, width).

    Returns:
        int32 (batch, height, width): 0, 1, 2, ... in each image, by the regions' first pixels.
    """
    check_shape("label_map", label_map, ("batch", "height", "width"))
    return jax.vmap(_connected_regions)(label_map)


def _connected_regions(label_map: jax.Array) -> jax.Array:
    start = jnp.arange(label_map.size, dtype=jnp.int32).reshape(label_map.shape)

    def spread(region: jax.Array) -> jax.Array:
        for axis in (0, 1):
            for back in (False, True):
                near = jnp.roll(region, -1 if back else 1, axis)
                same = jnp.roll(label_map, -1 if back else 1, axis) == label_map
                edge = jax.lax.broadcasted_iota(jnp.int32, label_map.shape, axis)
                edge = edge == (label_map.shape[axis] - 1 if back else 0)
                region = jnp.where(same & ~edge, jnp.minimum(region, near), region)
        return region.ravel()[region]  # whatever my region's first pixel has found meanwhile

    def unsettled(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.any(state[0] != state[1])

    _, region = jax.lax.while_loop(
        unsettled, lambda state: (state[1], spread(state[1])), (start, spread(start))
    )
    rank = jnp.cumsum((region == start).ravel()) - 1
    return rank[region].astype(jnp.int32)


def consensus_loss(
    logits: jax.Array,
    label_map: jax.Array,
    regions: jax.Array,
    alpha: float = 10.0,
    beta: float = 5.0,
    num_regions: int | None = None,
) -> jax.Array:
    """Asks each region to be right as a whole and to agree with itself (structure via consensus).

    For each region, alpha * NLL(mean probability) + beta * KL(mean probability || a pixel's
    probability), averaged over the regions. As in the original code, pixels of one number make one
    region throughout the batch: its likelihood is the mean over all images, zero where an image
    lacks it, each image having a mean probability of its own; its KL is the mean over all its
    pixels and over the labels. To weigh every region of every image alike, `jax.vmap` over images.

    Args:
        logits: (batch, height, width, labels).
        label_map: integers below `labels`, (batch, height, width); one label a region and image.
        regions: region numbers in 0..height * width - 1, integers (batch, height, width): those of
            `connected_regions`, or the label map itself for whole-label regions.
        alpha: weight of the mean's likelihood.
        beta: weight of the disagreement.
        num_regions: how many numbers there are, if fewer than pixels: it is faster then.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: shapes do not fit, or a label is outside 0..labels - 1.
    """
    check_logits(logits, label_map)
    check_shape("regions", regions, logits.shape[:3])
    if num_regions is None:
        num_regions = logits.shape[1] * logits.shape[2]
    terms = functools.partial(_region_terms, num_regions=num_regions)
    per_image = jax.vmap(terms)(logits.astype(jnp.float32), label_map, regions)
    count, likelihood, disagreement = (jnp.sum(term, axis=0) for term in per_image)
    batch, num_labels = logits.shape[0], logits.shape[-1]
    disagreement = disagreement / (jnp.maximum(count, 1) * num_labels)
    per_region = alpha * likelihood / batch + beta * disagreement
    return jnp.sum(per_region) / jnp.sum(count > 0)


def mean_consensus_loss(
    logits: jax.Array,
    label_map: jax.Array,
    *,
    connected: bool,
    alpha: float = 10.0,
    beta: float = 5.0,
) -> jax.Array:
    """`consensus_loss` of each image by itself, averaged over the images.

    So every region of an image weighs alike, and the loss does not hang on how images are shared
    out among devices; that is ours, where the original code takes a batch as one.

    Args:
        logits: (batch, height, width, labels).
        label_map: integers below `labels`, (batch, height, width).
        connected: whether each connected region of a label is one, or all pixels of a label.
        alpha: weight of the mean's likelihood.
        beta: weight of the disagreement.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: shapes do not fit, or a label is outside 0..labels - 1.
    """
    check_logits(logits, label_map)
    regions = connected_regions(label_map) if connected else label_map
    num_regions = None if connected else logits.shape[-1]

    def of_image(logits: jax.Array, label_map: jax.Array, regions: jax.Array) -> jax.Array:
        batch = logits[None], label_map[None], regions[None]
        return consensus_loss(*batch, alpha, beta, num_regions)

    return jnp.mean(jax.vmap(of_image)(logits, label_map, regions))


def _region_terms(
    logits: jax.Array, label_map: jax.Array, regions: jax.Array, num_regions: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pixel count, likelihood and summed KL of each region number of one image; zero if unused."""
    num_labels = logits.shape[-1]
    log_probs = jax.nn.log_softmax(logits).reshape(-1, num_labels)

    def total(values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values, regions.ravel(), num_segments=num_regions)

    count = total(jnp.ones(regions.size))
    there = count > 0
    # The mean's logarithm relative to the region's highest, for where all of them are too small.
    # Unused numbers get a harmless one inside the logarithm: no infinity reaches the gradient.
    highest = jax.lax.stop_gradient(
        jax.ops.segment_max(log_probs, regions.ravel(), num_segments=num_regions)
    )
    highest = jnp.where(there[:, None], highest, 0.0)
    relative = total(jnp.exp(log_probs - highest[regions.ravel()]))
    log_mean = highest + jnp.log(
        jnp.where(there[:, None], relative / jnp.maximum(count, 1)[:, None], 1.0)
    )
    mean = jnp.where(there[:, None], jnp.exp(log_mean), 0.0)
    label = jax.ops.segment_max(
        label_map.ravel().astype(jnp.int32), regions.ravel(), num_segments=num_regions
    )
    label = jnp.where(there, label, 0)
    likelihood = -jnp.take_along_axis(log_mean, label[:, None], axis=1)[:, 0]
    disagreement = jnp.sum(mean * (count[:, None] * log_mean - total(log_probs)), axis=-1)
    return count, likelihood, disagreement
