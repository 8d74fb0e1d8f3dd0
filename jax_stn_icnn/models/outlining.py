"""Parts of networks as functions of their own, which a compiled program may keep."""

from collections.abc import Callable
from typing import Any, TypeVar

from flax import linen as nn

from jax_stn_icnn.compilation.inlining import NAME

Result = TypeVar("Result")


def outlined(run: Callable[..., Result], module: nn.Module, *arrays: Any, train: bool) -> Result:
    """Runs a part of a module as a function that `compilation.functions.prevent_inlining` finds.

    Where that is not called, it is compiled as if it were run directly.

    Args:
        run: takes the module and the arrays.
        module: a Flax module.
        *arrays: trees of arrays.
        train: whether it is run directly: all that a gradient needs would be written at the
            function's border.

    Returns:
        What it returns.
    """
    if train or module.is_initializing():
        return run(module, *arrays)

    def function(module: nn.Module, *arrays: Any) -> Result:
        return run(module, *arrays)

    function.__name__ = NAME
    return nn.jit(function)(module, *arrays)
