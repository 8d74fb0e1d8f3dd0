"""Minimum operations and bytes of a computation.

Bytes are those of inputs, outputs and parameters, as if all intermediates stayed in the cache;
operations are those of the networks as they are defined, two for a multiply-accumulate. The only
exception is the upsampled input of a convolution, which counts at its own resolution, since it
need not be upsampled (`models/layers.py`).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.layers import Conv

# Passes of a training step: forward, gradient of the input, gradient of the kernel.
TRAINING = 3
# Operations of one bilinear sample: four products and three additions.
BILINEAR = 7
# Of its gradient by theta: five for each of the slopes along x and y, which are multiplied by the
# cotangent and added up.
SLOPES = 14
# Of its gradient by the image: a product and an addition for each of four pixels.
SCATTER = 8


class Work(NamedTuple):
    """Minimum operations and bytes of a call."""

    operations: float
    bytes: float

    # A tuple's own + concatenates.
    def __add__(self, other: "Work") -> "Work":  # type: ignore[override]
        return Work(self.operations + other.operations, self.bytes + other.bytes)


def fraction_of_peak(work: Work, peak: Any, seconds: float) -> float:
    """Returns the fraction of the peak, 1 if operations or bytes reach it.

    Args:
        work: The work.
        peak: The machine's `timing.Peak`.
        seconds: Time of the work.
    """
    return max(work.operations / peak.operations, work.bytes / peak.bytes) / seconds


def input_shapes(config: ModelConfig, batch: int) -> dict[str, Any]:
    """Returns the inputs of each network for a batch, as trees of `jax.ShapeDtypeStruct`."""

    def struct(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, *shape), jnp.float32)

    return {
        "coarse": struct(*config.coarse_image_size, 3),
        "localizer": struct(*(config.coarse_size,) * 2, 1 + len(config.anatomy.part_class_ids)),
        "fine": tuple(struct(*size, 3) for size in config.patch_sizes),
    }


def submodule(
    model: nn.Module, variables: dict[str, Any], name: str
) -> tuple[nn.Module, dict[str, Any]]:
    """Returns one of a model's networks, and its variables."""
    module = getattr(model.bind(variables), name).unbind()[0]
    return module, {kind: tree[name] for kind, tree in variables.items()}


def networks(
    model: Any, variables: dict[str, Any], batch: int, names: Iterable[str], *, training: bool
) -> Work:
    """Returns the work of networks of a model, without their inputs and outputs.

    Args:
        model: The model.
        variables: Its variables.
        batch: Number of faces.
        names: The networks.
        training: Whether they are trained: the gradients are computed, and parameters and Adam's
            two moments are read and written.
    """
    shapes = input_shapes(model.config, batch)
    total = Work(0, 0)
    for name in names:
        module, own = submodule(model, variables, name)
        operations = 2 * multiply_accumulates(module, shapes[name], train=False)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(own["params"]))
        total += Work(TRAINING * operations, 6 * size) if training else Work(operations, size)
    return total


def multiply_accumulates(module: nn.Module, inputs: Any, **arguments: Any) -> int:
    """Returns the multiply-accumulates of a network's convolutions and dense layers.

    Args:
        module: The network.
        inputs: Shapes of its input.
        **arguments: Other arguments of its call.

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
                total -= out.size * below[0].shape[1] * _saved_taps(kernel.shape[0])
        return out

    with nn.intercept_methods(count):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, **arguments), inputs)
    return total


def _saved_taps(side: int) -> int:
    """Returns the number of taps that share a pixel with another tap in an upsampled input."""
    distinct = 2 * ((side // 2 + 1) // 2) + 1
    return side**2 - distinct**2
