"""A function of JAX as a graph of ONNX, for the operations that a parser consists of.

Why not a library: jax2onnx, the one that is kept, replaces functions of JAX and Flax while it
traces, stops at what depends on the platform, and asks for an older Orbax than training needs.

What depends on constants alone is computed here. Broadcasting is put off until an operation needs
the whole array, since ONNX broadcasts by itself where numbers meet; so a BatchNorm stays a product
and a sum with one number a channel, which runtimes fuse into the convolution before it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import helper

from jax_stn_icnn.io.onnx_graph import Dim, Graph, Shape, Tensor, known
from jax_stn_icnn.io.onnx_operations import ELEMENTWISE, NAMED, OPERATIONS

OPSET = 17  # What all runtimes of recent years have.
SMALL = 2**16  # bytes of a constant that may be larger than what it is made from


def convert(
    function: Callable[..., Any],
    argument: jax.ShapeDtypeStruct,
    *,
    input_name: str,
    output_names: Sequence[str],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """A function of one array as a model of ONNX.

    Args:
        function: A function of JAX, traced for the platform `onnx` (`ops.platform`).
        argument: shape and type of its argument; the first size may be a symbol, the batch.
        input_name: of the argument.
        output_names: of the arrays that the function returns.
        metadata: goes into the model.

    Returns:
        The model, checked by ONNX's own checker.

    Raises:
        NotImplementedError: the function has an operation that is not known here.
    """
    closed = jax.make_jaxpr(function)(argument)
    given = Tensor(None, input_name, argument.shape, np.dtype(argument.dtype))
    graph = Graph(given)
    found = _evaluate(graph, closed.jaxpr, [known(value) for value in closed.consts], [given])
    outputs = []
    for tensor, variable, name in zip(found, closed.jaxpr.outvars, output_names, strict=True):
        last = graph.whole(tensor, variable.aval.shape)
        graph.nodes.append(helper.make_node("Identity", [graph.name_of(last)], [name]))
        outputs.append(_declared(name, last.shape, last.dtype))
    described = helper.make_graph(
        graph.nodes,
        "parser",
        [_declared(input_name, argument.shape, argument.dtype)],
        outputs,
        graph.initializers,
    )
    model = helper.make_model(
        described, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="jax_stn_icnn"
    )
    model.ir_version = 8  # That of the opset; runtimes refuse newer ones than they know.
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _declared(name: str, shape: Shape, dtype: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [_declared_size(s) for s in shape]
    )


def _declared_size(size: Dim) -> int | str:
    return size if isinstance(size, int) else str(size)


def _evaluate(
    graph: Graph, jaxpr: Any, constants: Sequence[Tensor], arguments: Sequence[Tensor]
) -> list[Tensor]:
    """Takes a jaxpr's operations one after another into the graph."""
    values: dict[Any, Tensor] = {}

    def read(variable: Any) -> Tensor:
        return known(variable.val) if isinstance(variable, core.Literal) else values[variable]

    given = zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True)
    values.update(given)
    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        outputs = _apply(graph, equation, inputs)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _apply(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    name = equation.primitive.name
    if name in CALLS:
        return CALLS[name](graph, equation, inputs)
    if all(one.array is not None for one in inputs) and (found := _computed(equation, inputs)):
        return found
    if name not in OPERATIONS:
        raise NotImplementedError(f"the operation {name!r} of JAX has no counterpart in ONNX here")
    made = OPERATIONS[name](graph, equation, inputs)
    return made if isinstance(made, list) else [made]


def _computed(equation: Any, inputs: list[Tensor]) -> list[Tensor] | None:
    """The values of an operation on constants; None where the file would grow by them.

    Such as the kernels of `convolve_upsampled`: runtimes compute them when they load the file.
    """
    shapes = [variable.aval.shape for variable in equation.outvars]
    if not all(isinstance(size, int) for shape in shapes for size in shape):
        return None
    name = equation.primitive.name
    bytes_in = sum(one.array.nbytes for one in inputs if one.array is not None)
    bytes_out = sum(
        math.prod(variable.aval.shape) * variable.aval.dtype.itemsize
        for variable in equation.outvars
    )
    if bytes_out > max(bytes_in, SMALL):
        return None
    if name in ELEMENTWISE:
        arrays = np.broadcast_arrays(*[one.numbers for one in inputs])
    elif name in ("broadcast_in_dim", "iota"):  # Put off.
        return None
    else:
        arrays = tuple(
            np.broadcast_to(one.numbers, variable.aval.shape)
            for one, variable in zip(inputs, equation.invars, strict=True)
        )
    with jax.ensure_compile_time_eval(), jax.default_matmul_precision("highest"):
        found = equation.primitive.bind(*arrays, **equation.params)
    return [known(value) for value in (found if equation.primitive.multiple_results else [found])]


def _inlined(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    parameters = equation.params
    if parameters.get("name") in NAMED:
        return [NAMED[parameters["name"]](graph, equation, inputs)]
    inner = parameters.get("jaxpr") or parameters["call_jaxpr"]
    return _evaluate(graph, inner.jaxpr, [known(value) for value in inner.consts], inputs)


def _branch(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    which, *rest = inputs
    if which.array is None:
        raise NotImplementedError("a choice that depends on the frames has no counterpart here")
    chosen = equation.params["branches"][int(which.array)]
    return _evaluate(graph, chosen.jaxpr, [known(value) for value in chosen.consts], rest)


CALLS: dict[str, Callable[..., list[Tensor]]] = {
    "jit": _inlined,
    "custom_jvp_call": _inlined,
    "custom_vjp_call": _inlined,
    "cond": _branch,
}
