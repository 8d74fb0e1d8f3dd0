"""Functions of a compiled program that XLA does not inline, so that it loads faster.

XLA inlines all functions of a program. On a CPU, loading a program computes the dependencies of all
its operations, in time quadratic in their number: a third of the time of loading a parse. Functions
that are not inlined are processed one by one.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.stages import Lowered
from jaxlib.mlir import ir

# The name of the functions that are not inlined; JAX numbers them from the second on.
NAME = "not_inlined"

Result = TypeVar("Result")


def not_inlined(function: Callable[..., Result]) -> Callable[..., Result]:
    """Returns a function that a traced program calls, and that `prevent_inlining` marks.

    Without `prevent_inlining`, the program is compiled as if `function` were called directly.

    Args:
        function: Function of trees of arrays.
    """

    def run(*arrays: Any) -> Result:
        return function(*arrays)

    run.__name__ = NAME
    return jax.jit(run)


def prevent_inlining(lowered: Lowered, platform: str | None = None) -> Lowered:
    """Marks the functions called `NAME` as not to be inlined, on a CPU.

    XLA does not fuse operations across their borders.

    Args:
        lowered: A program that is not compiled yet; it is changed in place.
        platform: Where it runs; by default on JAX's default backend.

    Returns:
        The same program.
    """
    if (platform or jax.default_backend()) != "cpu":
        return lowered
    program = lowered.compiler_ir("stablehlo")
    assert program is not None
    with program.context:
        attributes = ir.DictAttr.get({"inlineable": ir.StringAttr.get("false")})

    def mark(operation: ir.Operation) -> ir.WalkResult:
        if operation.name == "func.call" and NAME in str(operation.attributes["callee"]):
            operation.attributes["mhlo.frontend_attributes"] = attributes
        return ir.WalkResult.ADVANCE

    program.operation.walk(lambda view: mark(view.operation))
    return lowered
