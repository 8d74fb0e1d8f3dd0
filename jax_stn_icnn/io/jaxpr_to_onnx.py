"""Converts a JAX function to an ONNX graph; supports the operations of this project's models.

The library jax2onnx is no alternative: it replaces functions of JAX and Flax during tracing, and it
requires an older Orbax than training does.

Operations on constants are computed during conversion. Broadcasting is deferred until an operation
needs the full array, since ONNX's elementwise operations broadcast; so a BatchNorm remains a
product and a sum with one number per channel, which runtimes fuse into the convolution before it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import helper

from jax_stn_icnn.io.onnx_graph import Dim, Graph, Shape, Tensor, constant
from jax_stn_icnn.io.onnx_operations import ELEMENTWISE, FUNCTIONS, OPERATIONS

OPSET = 17  # All runtimes of recent years support it.
MAX_GROWN_BYTES = 2**16  # A folded constant may exceed its inputs up to this size.
CALLS = ("jit", "custom_jvp_call", "custom_vjp_call")


def convert(
    function: Callable[..., Any],
    arguments: Mapping[str, jax.ShapeDtypeStruct],
    *,
    output_names: Sequence[str],
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """Converts a function of arrays to an ONNX model.

    Args:
        function: A JAX function, traced for the platform `onnx` (`ops.platform`).
        arguments: Shape and type of its arguments, in their order, by the names of the inputs; the
            first size may be a symbol, the batch, the same for all.
        output_names: Names of the arrays that the function returns.
        metadata: Metadata of the model.

    Returns:
        The model, checked by `onnx.checker`.

    Raises:
        NotImplementedError: The function has an operation that is not supported.
    """
    closed = jax.make_jaxpr(function)(*arguments.values())
    inputs = [
        Tensor(None, name, argument.shape, np.dtype(argument.dtype))
        for name, argument in arguments.items()
    ]
    graph = Graph(inputs[0])
    results = _add_jaxpr(graph, closed, inputs)
    outputs = []
    for tensor, variable, name in zip(results, closed.jaxpr.outvars, output_names, strict=True):
        output = graph.expand(tensor, variable.aval.shape)
        graph.nodes.append(helper.make_node("Identity", [graph.name_of(output)], [name]))
        outputs.append(_value_info(name, output.shape, output.dtype))
    declared = [_value_info(each.name, each.shape, each.dtype) for each in inputs]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "parser", declared, outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="jax_stn_icnn",
    )
    model.ir_version = 8  # the version of the opset; runtimes refuse versions newer than theirs
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _value_info(name: str, shape: Shape, dtype: Any) -> onnx.ValueInfoProto:
    def size(dim: Dim) -> int | str:
        return dim if isinstance(dim, int) else str(dim)

    onnx_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, onnx_type, [size(dim) for dim in shape])


def _add_jaxpr(graph: Graph, closed: Any, arguments: Sequence[Tensor]) -> list[Tensor]:
    """Adds the equations of a closed jaxpr to the graph and returns its results."""
    jaxpr, tensors = closed.jaxpr, dict[Any, Tensor]()

    def read(variable: Any) -> Tensor:
        return constant(variable.val) if isinstance(variable, core.Literal) else tensors[variable]

    constants = [constant(value) for value in closed.consts]
    names = [*jaxpr.constvars, *jaxpr.invars]
    tensors.update(zip(names, [*constants, *arguments], strict=True))
    for equation in jaxpr.eqns:
        outputs = _add_equation(graph, equation, [read(variable) for variable in equation.invars])
        tensors.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _add_equation(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    """Adds an equation to the graph, or computes it, and returns its results."""
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        if params.get("name") in FUNCTIONS:
            return [FUNCTIONS[params["name"]](graph, equation, inputs)]
        return _add_jaxpr(graph, params.get("jaxpr") or params["call_jaxpr"], inputs)
    if all(tensor.array is not None for tensor in inputs):
        folded = _fold_constants(equation, inputs)
        if folded is not None:
            return folded
    if name not in OPERATIONS:
        raise NotImplementedError(f"the JAX operation {name!r} cannot be converted to ONNX")
    outputs = OPERATIONS[name](graph, equation, inputs)
    return outputs if isinstance(outputs, list) else [outputs]


def _fold_constants(equation: Any, inputs: list[Tensor]) -> list[Tensor] | None:
    """Returns the results of an operation on constants; None if they would enlarge the file.

    The kernels of `convolve_upsampled` would, so runtimes compute them when they load the file.
    """
    outputs = [variable.aval for variable in equation.outvars]
    if not all(isinstance(size, int) for output in outputs for size in output.shape):
        return None
    name = equation.primitive.name
    bytes_in = sum(tensor.value.nbytes for tensor in inputs)
    bytes_out = sum(math.prod(output.shape) * output.dtype.itemsize for output in outputs)
    if bytes_out > max(bytes_in, MAX_GROWN_BYTES):
        return None
    if name in ("broadcast_in_dim", "iota"):  # Broadcasting is deferred.
        return None
    if name in ELEMENTWISE:
        arrays = np.broadcast_arrays(*[tensor.value for tensor in inputs])
    else:
        arrays = tuple(
            np.broadcast_to(tensor.value, variable.aval.shape)
            for tensor, variable in zip(inputs, equation.invars, strict=True)
        )
    with jax.ensure_compile_time_eval(), jax.default_matmul_precision("highest"):
        results = equation.primitive.bind(*arrays, **equation.params)
    return [
        constant(array) for array in (results if equation.primitive.multiple_results else [results])
    ]
