"""Functions that a compiled program keeps, so that it is loaded sooner.

XLA writes all functions of a program into one. On CPU, whenever that is loaded, it works out which
operation has to wait for which, in a time that grows with the square of their number: a third of
the time of loading a parse. Functions that are kept are looked at one by one.
"""

import jax
from jax.stages import Lowered
from jaxlib.mlir import ir

# What JAX calls those that are to be kept; it numbers them from the second on.
NAME = "kept_function"


def prevent_inlining(lowered: Lowered) -> Lowered:
    """Has XLA keep the functions called `NAME`, on CPU; nothing is fused across their borders.

    Args:
        lowered: a program, not yet compiled. It is changed.

    Returns:
        The same.
    """
    if jax.default_backend() != "cpu":
        return lowered
    program = lowered.compiler_ir("stablehlo")
    assert program is not None
    with program.context:
        attributes = ir.DictAttr.get({"inlineable": ir.StringAttr.get("false")})

    def keep(operation: ir.Operation) -> ir.WalkResult:
        if operation.name == "func.call" and NAME in str(operation.attributes["callee"]):
            operation.attributes["mhlo.frontend_attributes"] = attributes
        return ir.WalkResult.ADVANCE

    program.operation.walk(lambda view: keep(view.operation))
    return lowered
