"""The operations and bytes that a piece of work needs at the least.

Bytes are what goes in and comes out, as if all between stayed in the cache; operations are those of
the networks as they are written down, two for a multiplication with an addition. Only the row below
that a convolution takes in does not count as upsampled, since it need not be (`models/conv.py`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax_stn_icnn.models.conv import Conv

# A training pass: forward, gradient of the input, gradient of the kernel.
TRAINING = 3
# A value of a bilinear sample: four products and three additions.
BILINEAR = 7
# Its slopes along x and y are five operations each, each times the cotangent and summed.
SLOPES = 14
# Its gradient goes to four pixels by a product and an addition each.
SCATTER = 8


class Work(NamedTuple):
    """What a call needs at the least."""

    operations: float
    bytes: float

    # A tuple's own + would join the two.
    def __add__(self, other: "Work") -> "Work":  # type: ignore[override]
        return Work(self.operations + other.operations, self.bytes + other.bytes)


def share(work: Work, peak: Any, seconds: float) -> float:
    """What fraction of peak a time is: 1 where the machine is at one of its two limits."""
    return max(work.operations / peak.operations, work.bytes / peak.bytes) / seconds


def macs(module: nn.Module, *inputs: jax.ShapeDtypeStruct, **arguments: Any) -> int:
    """Multiplications of a network's convolutions and dense layers, from their shapes.

    Args:
        module: the network.
        *inputs: the shapes of what it is called with.
        **arguments: other arguments of its call.

    Returns:
        Multiply-accumulates of one forward pass.
    """
    total = 0

    def count(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal total
        out = call(*args, **kwargs)
        if (
            isinstance(context.module, Conv | nn.Conv | nn.Dense)
            and context.method_name == "__call__"
        ):
            kernel = context.module.variables["params"]["kernel"]
            total += out.size * math.prod(kernel.shape[:-1])
            _, *below = args
            if isinstance(context.module, Conv) and below and below[0] is not None:
                total -= out.size * below[0].shape[1] * _spared(kernel.shape[0])
        return out

    with nn.intercept_methods(count):
        jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, **arguments), *inputs)
    return total


def _spared(side: int) -> int:
    """Taps of a kernel that fall on the same pixel as another where every pixel counts twice."""
    taken = 2 * ((side // 2 + 1) // 2) + 1
    return side**2 - taken**2


def network(multiplications: int, params: Any, bytes_in_out: int, *, training: bool) -> Work:
    """A network's pass; training also reads and writes parameters and Adam's two moments."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    if training:
        return Work(2 * TRAINING * multiplications, bytes_in_out + 6 * size)
    return Work(2 * multiplications, bytes_in_out + size)
