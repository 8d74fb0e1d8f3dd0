"""The one place that says how a platform samples: by looking pixels up, or by products.

Processors and GPUs look up what they need. A TPU looks up one pixel after the other, while its
units for products of matrices are idle: there upright windows are sampled by `products`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

Sampled = TypeVar("Sampled")


def choose(
    axis_aligned: bool,
    products: Callable[..., Sampled],
    lookups: Callable[..., Sampled],
    *arrays: Any,
) -> Sampled:
    """Samples by one of two ways that give the same.

    Args:
        axis_aligned: whether windows are known to be, which products need.
        products: of the arrays.
        lookups: likewise.
        *arrays: what they are given, or trees of them.

    Returns:
        What the platform's way returns.
    """
    if not axis_aligned:
        return lookups(*arrays)
    return jax.lax.platform_dependent(*arrays, tpu=products, default=lookups)
