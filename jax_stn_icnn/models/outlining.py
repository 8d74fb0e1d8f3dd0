"""Parts of networks, and their losses, as functions that a compiled program does not inline."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.compilation.inlining import NAME, not_inlined
from jax_stn_icnn.ops.platform import current_implementations

Result = TypeVar("Result")


def outlined(run: Callable[..., Result], module: nn.Module, *arrays: Any, train: bool) -> Result:
    """Returns `run(module, *arrays)`, called as a function of the traced program.

    `compilation.inlining.prevent_inlining` keeps XLA from inlining that function; without it, the
    program is compiled as if `run` were called directly.

    Args:
        run: Function of the module and the arrays.
        module: A Flax module.
        *arrays: Trees of arrays.
        train: Whether `run` is called directly, since all residuals of a gradient would have to
            cross the function's border.
    """
    if train or module.is_initializing():
        return run(module, *arrays)
    return _as_function(run)(module, *arrays)


def outlined_loss(
    loss: Callable[..., jax.Array], module: nn.Module, inputs: Any, targets: Any
) -> jax.Array:
    """Returns `loss(module, inputs, targets)`, on a CPU computed with its gradient in one function.

    No residuals cross the border of that function, as those of `outlined` would, and they are freed
    before the next loss is computed. `compilation.inlining.prevent_inlining` applies to it, too.
    Elsewhere XLA inlines all functions, and a joint step would take a fourteenth longer on a TPU.
    On several devices that share statistics, later factors of the loss must be the same on all.

    Args:
        loss: Function of the module and two trees of arrays; returns a scalar.
        module: A Flax module.
        inputs: The arrays that the loss is differentiated with respect to, beside the parameters.
        targets: The arrays that it is not differentiated with respect to.
    """
    if not current_implementations().outlined_losses:
        return loss(module, inputs, targets)

    def forward(module: nn.Module, inputs: Any, targets: Any) -> tuple[jax.Array, Any]:
        value, pullback = nn.vjp(lambda *given: loss(*given, targets), module, inputs)
        return value, pullback(jnp.ones_like(value))

    def backward(gradients: Any, cotangent: jax.Array) -> tuple[Any, Any, None]:
        of_params, of_inputs = not_inlined(_scaled)(gradients, cotangent)
        return of_params, of_inputs, None

    return nn.custom_vjp(loss, _as_function(forward), backward)(module, inputs, targets)


def _scaled(tree: Any, factor: jax.Array) -> Any:
    return jax.tree.map(lambda x: (x * factor).astype(x.dtype), tree)


def _as_function(run: Callable[..., Result]) -> Callable[..., Result]:
    def function(module: nn.Module, *arrays: Any) -> Result:
        return run(module, *arrays)

    function.__name__ = NAME
    return nn.jit(function)
