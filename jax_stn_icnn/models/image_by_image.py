"""Inference image by image, on platforms where it is faster than by whole batches."""

from collections.abc import Callable
from typing import Any

import jax

from jax_stn_icnn.ops.platform import current_implementations


def map_images(function: Callable[..., Any], *images: Any) -> Any:
    """Returns `function(*images)`, computed for one image after the other on a CPU.

    The intermediate arrays of one image stay in a CPU's caches, and need the memory of one image.
    There, an image's result does not depend on its place in the batch.

    Args:
        function: Maps arrays (batch, ...) to a tree of arrays (batch, ...); each image's result
            depends on that image alone.
        *images: The arguments of `function`, trees of arrays (batch, ...).

    Returns:
        The result of `function`, up to rounding.
    """
    batch = jax.tree.leaves(images)[0].shape[0]
    # In an exported program the batch size is a symbol.
    if not current_implementations().image_by_image or not isinstance(batch, int) or batch == 1:
        return function(*images)
    single = jax.tree.map(lambda x: x[:, None], images)
    results = jax.lax.map(lambda image: function(*image), single)
    return jax.tree.map(lambda x: x[:, 0], results)
