"""JAX operations in ONNX: each function adds a jaxpr's equation to the graph."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from jax_stn_icnn.io.onnx_graph import Dim, Graph, Shape, Tensor, constant


def _max_pool(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    """Adds `ops.pooling.max_pool` as one node instead of thirty."""
    (output,) = equation.outvars
    ends = [size % 2 for size in equation.invars[0].aval.shape[2:]]
    return graph.add(
        "MaxPool",
        _expand(graph, equation, inputs),
        output.aval.shape,
        output.aval.dtype,
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, *ends],
    )


def _elementwise(op: str) -> Callable[..., Tensor]:
    def add(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
        (output,) = equation.outvars
        return graph.add(op, inputs, _broadcast_shape(inputs), output.aval.dtype)

    return add


def _broadcast_shape(inputs: Sequence[Tensor]) -> Shape:
    """Returns the shape that tensors broadcast to."""
    rank = max(len(tensor.shape) for tensor in inputs)
    shapes = [(1,) * (rank - len(tensor.shape)) + tensor.shape for tensor in inputs]
    return tuple(next((s for s in sizes if s != 1), 1) for sizes in zip(*shapes, strict=True))


def _max(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    is_zero = [tensor.array is not None and not tensor.array.any() for tensor in inputs]
    dtype = equation.outvars[0].aval.dtype
    if any(is_zero):  # Runtimes fuse Relu into the convolution before it.
        (x,) = [tensor for tensor, zero in zip(inputs, is_zero, strict=True) if not zero]
        if x.shape == _broadcast_shape(inputs):
            return graph.add("Relu", [x], x.shape, dtype)
    return graph.add("Max", inputs, _broadcast_shape(inputs), dtype)


def _clamp(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    lowest, x, highest = inputs
    return graph.add("Clip", [x, lowest, highest], x.shape, x.dtype)


def _sub(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    x, y = inputs
    dtype = equation.outvars[0].aval.dtype
    if y.array is not None:  # Runtimes fuse sums into the convolution before them.
        return graph.add("Add", [x, constant(-y.array)], _broadcast_shape(inputs), dtype)
    return graph.add("Sub", inputs, _broadcast_shape(inputs), dtype)


def _not_equal(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    equal = graph.add("Equal", inputs, _broadcast_shape(inputs), np.bool_)
    return graph.add("Not", [equal], equal.shape, np.bool_)


def _select(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    condition, if_false, if_true = inputs
    dtype = equation.outvars[0].aval.dtype
    return graph.add("Where", [condition, if_true, if_false], _broadcast_shape(inputs), dtype)


def _cast(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    dtype = np.dtype(equation.params["new_dtype"])
    if inputs[0].dtype == dtype:
        return inputs[0]
    to = helper.np_dtype_to_tensor_dtype(dtype)
    return graph.add("Cast", inputs, inputs[0].shape, dtype, to=to)


def _identity(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    return inputs


def _broadcast_in_dim(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    """Adds axes of size one; the broadcasting itself is deferred."""
    axes = equation.params["broadcast_dimensions"]
    sizes: list[Dim] = [1] * len(equation.params["shape"])
    for axis, size in zip(axes, inputs[0].shape or (1,) * len(axes), strict=True):
        sizes[axis] = size
    return graph.reshape(inputs[0], tuple(sizes))


def _iota(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    shape, axis = equation.params["shape"], equation.params["dimension"]
    sizes = [1] * len(shape)
    sizes[axis] = shape[axis]
    return constant(np.arange(shape[axis], dtype=equation.params["dtype"]).reshape(sizes))


def _expand(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    """Returns an equation's inputs in their full shapes."""
    return [
        graph.expand(tensor, variable.aval.shape)
        for tensor, variable in zip(inputs, equation.invars, strict=True)
    ]


def _reshape(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (x,) = _expand(graph, equation, inputs)
    return graph.reshape(x, equation.outvars[0].aval.shape)


def _transpose(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (x,) = inputs
    missing_axes = len(equation.invars[0].aval.shape) - len(x.shape)
    x = graph.reshape(x, (1,) * missing_axes + x.shape)
    return graph.transpose(x, equation.params["permutation"])


def _slice(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (x,) = _expand(graph, equation, inputs)
    starts, ends = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(x.shape)
    # Full axes are left out: their sizes may be symbols.
    axes = [
        axis
        for axis, size in enumerate(x.shape)
        if (starts[axis], ends[axis], strides[axis]) != (0, size, 1)
    ]
    if not axes:
        return x
    starts, ends, strides = ([values[axis] for axis in axes] for values in (starts, ends, strides))
    arguments = [graph.integers(values) for values in (starts, ends, axes, strides)]
    return graph.add("Slice", [x, *arguments], equation.outvars[0].aval.shape, x.dtype)


def _reverse(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (x,) = _expand(graph, equation, inputs)
    axes = list(equation.params["dimensions"])
    starts, ends, strides = [-1] * len(axes), [-(2**31)] * len(axes), [-1] * len(axes)
    arguments = [graph.integers(values) for values in (starts, ends, axes, strides)]
    return graph.add("Slice", [x, *arguments], x.shape, x.dtype)


def _pad(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    x, value = _expand(graph, equation, inputs)
    low, high, interior = zip(*equation.params["padding_config"], strict=True)
    if any(interior):
        raise NotImplementedError("interior padding cannot be converted to ONNX")
    shape = equation.outvars[0].aval.shape
    return graph.add("Pad", [x, graph.integers([*low, *high]), value], shape, x.dtype)


def _concatenate(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (output,) = equation.outvars
    arrays = _expand(graph, equation, inputs)
    axis = equation.params["dimension"]
    return graph.add("Concat", arrays, output.aval.shape, output.aval.dtype, axis=axis)


def _stack(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (output,) = equation.outvars
    axis, shape = equation.params["axis"], output.aval.shape
    thin = (*shape[:axis], 1, *shape[axis + 1 :])
    arrays = [graph.reshape(tensor, thin) for tensor in _expand(graph, equation, inputs)]
    return graph.add("Concat", arrays, shape, output.aval.dtype, axis=axis)


def _gather(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    """Adds a gather at constant indices, of a slice or along one axis."""
    (x, indices), (output,) = _expand(graph, equation, inputs), equation.outvars
    dimensions, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    axes = dimensions.start_index_map
    others_full = all(size == x.shape[a] for a, size in enumerate(sizes) if a not in axes)
    if others_full and not dimensions.operand_batching_dims and indices.array is not None:
        if indices.value.ndim == 1:
            starts = [int(i) for i in indices.value]
            ends = [start + sizes[axis] for start, axis in zip(starts, axes, strict=True)]
            arguments = [graph.integers(values) for values in (starts, ends, axes)]
            shape = tuple(sizes[a] if a in axes else size for a, size in enumerate(x.shape))
            x = graph.add("Slice", [x, *arguments], shape, x.dtype)
            return graph.reshape(x, output.aval.shape)
        if len(axes) == 1 and dimensions.collapsed_slice_dims == axes:
            (axis,), rank = axes, indices.value.ndim - 1
            # The output's axes that are not of the indices, if the indices replace the axis.
            offset_dims = (*range(axis), *range(axis + rank, rank + len(x.shape) - 1))
            if dimensions.offset_dims == offset_dims:
                which = constant(indices.value[..., 0].astype(np.int64))
                return graph.add("Gather", [x, which], output.aval.shape, x.dtype, axis=axis)
    raise NotImplementedError(f"a gather of this kind cannot be converted to ONNX: {dimensions}")


def _reduce_sum(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (output,), (x,) = equation.outvars, _expand(graph, equation, inputs)
    axes = graph.integers([int(axis) for axis in equation.params["axes"]])
    return graph.add("ReduceSum", [x, axes], output.aval.shape, x.dtype, keepdims=0)


def _reduce_max(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (output,), (x,) = equation.outvars, _expand(graph, equation, inputs)
    axes = [int(axis) for axis in equation.params["axes"]]  # an attribute, unlike ReduceSum's
    return graph.add("ReduceMax", [x], output.aval.shape, x.dtype, axes=axes, keepdims=0)


def _argmax(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (output,), (x,) = equation.outvars, _expand(graph, equation, inputs)
    (axis,) = equation.params["axes"]
    indices = graph.add("ArgMax", [x], output.aval.shape, np.int64, axis=axis, keepdims=0)
    to = helper.np_dtype_to_tensor_dtype(np.dtype(output.aval.dtype))
    return graph.add("Cast", [indices], indices.shape, output.aval.dtype, to=to)


def _dot_general(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    """Adds a product of arrays as a product of matrices."""
    (left, right), (output,) = _expand(graph, equation, inputs), equation.outvars
    (contract_left, contract_right), (batch_left, batch_right) = equation.params[
        "dimension_numbers"
    ]
    free_left = [a for a in range(len(left.shape)) if a not in (*contract_left, *batch_left)]
    free_right = [a for a in range(len(right.shape)) if a not in (*contract_right, *batch_right)]

    def matrices(x: Tensor, order: Sequence[Sequence[int]]) -> Tensor:
        transposed = graph.transpose(x, [axis for axes in order for axis in axes])
        sizes = tuple(math.prod(x.shape[axis] for axis in axes) for axes in order)
        return graph.reshape(transposed, sizes if batch_left else sizes[1:])

    a = matrices(left, (batch_left, free_left, contract_left))
    b = matrices(right, (batch_right, contract_right, free_right))
    shape = (*a.shape[:-1], b.shape[-1])
    return graph.reshape(graph.add("MatMul", [a, b], shape, output.aval.dtype), output.aval.shape)


def _convolution(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (x, kernel), (output,) = _expand(graph, equation, inputs), equation.outvars
    p = equation.params
    if any(d != 1 for d in p["lhs_dilation"]) or p["batch_group_count"] != 1:
        raise NotImplementedError("a transposed convolution cannot be converted to ONNX")
    image_axes, kernel_axes, output_axes = p["dimension_numbers"]
    low, high = zip(*p["padding"], strict=True)
    result = graph.add(
        "Conv",
        [graph.transpose(x, image_axes), graph.transpose(kernel, kernel_axes)],
        tuple(output.aval.shape[axis] for axis in output_axes),
        output.aval.dtype,
        strides=list(p["window_strides"]),
        pads=[*low, *high],
        dilations=list(p["rhs_dilation"]),
        group=p["feature_group_count"],
    )
    return graph.transpose(result, [output_axes.index(axis) for axis in range(len(output_axes))])


# Functions compiled by `jax.jit` that have an ONNX operation, by name.
FUNCTIONS: dict[str, Callable[..., Tensor]] = {"max_pool": _max_pool}
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": _elementwise("Add"),
    "sub": _sub,
    "mul": _elementwise("Mul"),
    "div": _elementwise("Div"),
    "max": _max,
    "min": _elementwise("Min"),
    "clamp": _clamp,
    "ge": _elementwise("GreaterOrEqual"),
    "gt": _elementwise("Greater"),
    "le": _elementwise("LessOrEqual"),
    "eq": _elementwise("Equal"),
    "ne": _not_equal,
    "or": _elementwise("Or"),
    "neg": _elementwise("Neg"),
    "abs": _elementwise("Abs"),
    "floor": _elementwise("Floor"),
    "round": _elementwise("Round"),
    "exp": _elementwise("Exp"),
    "tanh": _elementwise("Tanh"),
    "logistic": _elementwise("Sigmoid"),
    "select_n": _select,
    "convert_element_type": _cast,
    "stop_gradient": _identity,
    "optimization_barrier": _identity,
}
OPERATIONS: dict[str, Callable[..., Any]] = ELEMENTWISE | {
    "broadcast_in_dim": _broadcast_in_dim,
    "iota": _iota,
    "reshape": _reshape,
    "squeeze": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "rev": _reverse,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "gather": _gather,
    "reduce_sum": _reduce_sum,
    "reduce_max": _reduce_max,
    "argmax": _argmax,
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
}
