"""Parts of networks as functions that a compiled program does not inline."""

from collections.abc import Callable
from typing import Any, TypeVar

from flax import linen as nn

from jax_stn_icnn.compilation.inlining import NAME

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

    def function(module: nn.Module, *arrays: Any) -> Result:
        return run(module, *arrays)

    function.__name__ = NAME
    return nn.jit(function)(module, *arrays)
