"""The one place that says how a platform samples: by looking pixels up, or by products.

Processors and GPUs look up what they need. A TPU looks up one pixel after the other, while its
units for products of matrices are idle: there upright windows are sampled by `products`.
"""

from collections.abc import Callable

import jax


def choose(
    upright: bool,
    products: Callable[..., jax.Array],
    lookups: Callable[..., jax.Array],
    *arrays: jax.Array,
) -> jax.Array:
    """Samples by one of two ways that give the same.

    Args:
        upright: whether windows are known to be, which products need.
        products: of the arrays.
        lookups: likewise.
        *arrays: what they are given.

    Returns:
        What the platform's way returns.
    """
    if not upright:
        return lookups(*arrays)
    return jax.lax.platform_dependent(*arrays, tpu=products, default=lookups)
