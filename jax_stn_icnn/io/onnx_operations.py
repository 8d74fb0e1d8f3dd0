"""Operations of JAX in ONNX: each takes a jaxpr's equation and its inputs into the graph."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from jax_stn_icnn.io.onnx_graph import Dim, Graph, Shape, Tensor, known


def _max_pool(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    """`icnn.max_pool`: as one node, where its comparisons would be some thirty."""
    (output,) = equation.outvars
    ends = [size % 2 for size in equation.invars[0].aval.shape[2:]]
    return graph.add(
        "MaxPool",
        [graph.whole(inputs[0], equation.invars[0].aval.shape)],
        output.aval.shape,
        output.aval.dtype,
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, *ends],
    )


def _elementwise(op: str) -> Callable[..., Tensor]:
    def apply(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
        (output,) = equation.outvars
        return graph.add(op, inputs, _meeting(inputs), output.aval.dtype)

    return apply


def _meeting(inputs: Sequence[Tensor]) -> Shape:
    """The shape that tensors of one rank broadcast to."""
    rank = max(len(one.shape) for one in inputs)
    shapes = [(1,) * (rank - len(one.shape)) + one.shape for one in inputs]
    return tuple(next((s for s in sizes if s != 1), 1) for sizes in zip(*shapes, strict=True))


def _maximum(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    zero = [one.array is not None and not one.array.any() for one in inputs]
    dtype = equation.outvars[0].aval.dtype
    if any(zero):  # Fused into the convolution before it.
        (x,) = [one for one, is_zero in zip(inputs, zero, strict=True) if not is_zero]
        if x.shape == _meeting(inputs):
            return graph.add("Relu", [x], x.shape, dtype)
    return graph.add("Max", inputs, _meeting(inputs), dtype)


def _subtract(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    minuend, subtrahend = inputs
    dtype = equation.outvars[0].aval.dtype
    if subtrahend.array is not None:  # Sums are fused into the convolution before them.
        return graph.add("Add", [minuend, known(-subtrahend.array)], _meeting(inputs), dtype)
    return graph.add("Sub", inputs, _meeting(inputs), dtype)


def _rsqrt(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    root = graph.add("Sqrt", inputs, inputs[0].shape, inputs[0].dtype)
    return graph.add("Reciprocal", [root], root.shape, root.dtype)


def _unequal(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    same = graph.add("Equal", inputs, _meeting(inputs), np.bool_)
    return graph.add("Not", [same], same.shape, np.bool_)


def _select(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    which, if_false, if_true = inputs
    dtype = equation.outvars[0].aval.dtype
    return graph.add("Where", [which, if_true, if_false], _meeting(inputs), dtype)


def _cast(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    dtype = np.dtype(equation.params["new_dtype"])
    if inputs[0].dtype == dtype:
        return inputs[0]
    to = helper.np_dtype_to_tensor_dtype(dtype)
    return graph.add("Cast", inputs, inputs[0].shape, dtype, to=to)


def _same(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    return inputs


def _broadcast(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    """Axes of one where they are new; see the top of this file."""
    shape = equation.params["shape"]
    sizes: list[Dim] = [1] * len(shape)
    own = inputs[0].shape or (1,) * len(equation.params["broadcast_dimensions"])
    for axis, size in zip(equation.params["broadcast_dimensions"], own, strict=True):
        sizes[axis] = size
    return graph.reshape(inputs[0], tuple(sizes))


def _iota(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    shape, axis = equation.params["shape"], equation.params["dimension"]
    sizes = [1] * len(shape)
    sizes[axis] = shape[axis]
    return known(np.arange(shape[axis], dtype=equation.params["dtype"]).reshape(sizes))


def _full(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    return [
        graph.whole(one, variable.aval.shape)
        for one, variable in zip(inputs, equation.invars, strict=True)
    ]


def _reshape(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    return graph.reshape(_full(graph, equation, inputs)[0], equation.outvars[0].aval.shape)


def _transpose(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    order = equation.params["permutation"]
    return graph.transpose(_ranked(graph, equation, inputs)[0], order)


def _ranked(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    """With all of their axes, which may still be one long."""
    ranks = [len(variable.aval.shape) for variable in equation.invars]
    return [
        graph.reshape(one, (1,) * (rank - len(one.shape)) + one.shape)
        for one, rank in zip(inputs, ranks, strict=True)
    ]


def _slice(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (x,) = _full(graph, equation, inputs)
    p = equation.params
    strides = p["strides"] or (1,) * len(x.shape)
    (output,) = equation.outvars
    # Only axes that are cut: of the others the end may not be known yet.
    cut = [
        axis
        for axis, size in enumerate(x.shape)
        if (p["start_indices"][axis], p["limit_indices"][axis], strides[axis]) != (0, size, 1)
    ]
    if not cut:
        return x
    which = [[sizes[axis] for axis in cut] for sizes in (p["start_indices"], p["limit_indices"])]
    numbers = [*which, cut, [strides[axis] for axis in cut]]
    extra = [graph.integers(each) for each in numbers]
    return graph.add("Slice", [x, *extra], output.aval.shape, x.dtype)


def _reverse(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (x,) = _full(graph, equation, inputs)
    axes = list(equation.params["dimensions"])
    numbers = [[-1] * len(axes), [-(2**31)] * len(axes), axes, [-1] * len(axes)]
    return graph.add("Slice", [x, *(graph.integers(n) for n in numbers)], x.shape, x.dtype)


def _split(graph: Graph, equation: Any, inputs: list[Tensor]) -> list[Tensor]:
    (x,) = _full(graph, equation, inputs)
    axis, parts, start = equation.params["axis"], [], 0
    for size, variable in zip(equation.params["sizes"], equation.outvars, strict=True):
        extra = [graph.sizes((start,)), graph.sizes((start + size,)), graph.integers([axis])]
        parts.append(graph.add("Slice", [x, *extra], variable.aval.shape, x.dtype))
        start += size
    return parts


def _pad(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    x, value = _full(graph, equation, inputs)
    low, high, between = zip(*equation.params["padding_config"], strict=True)
    if any(between):
        raise NotImplementedError("padding between numbers has no counterpart in ONNX here")
    shape = equation.outvars[0].aval.shape
    return graph.add("Pad", [x, graph.integers([*low, *high]), value], shape, x.dtype)


def _concatenate(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (output,) = equation.outvars
    axis = equation.params["dimension"]
    whole = _full(graph, equation, inputs)
    return graph.add("Concat", whole, output.aval.shape, output.aval.dtype, axis=axis)


def _stack(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (output,) = equation.outvars
    axis, shape = equation.params["axis"], output.aval.shape
    thin = (*shape[:axis], 1, *shape[axis + 1 :])
    each = [graph.reshape(one, thin) for one in _full(graph, equation, inputs)]
    return graph.add("Concat", each, shape, output.aval.dtype, axis=axis)


def _gather(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    """Numbers of one axis that are known now, such as theta[..., 0, 2]."""
    (x, indices), (output,) = _full(graph, equation, inputs), equation.outvars
    how, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    axes = how.start_index_map
    whole = all(size == x.shape[a] for a, size in enumerate(sizes) if a not in axes)
    plain = whole and not how.operand_batching_dims and indices.array is not None
    if plain and indices.numbers.ndim == 1:
        starts = [int(i) for i in indices.numbers]
        ends = [start + sizes[axis] for start, axis in zip(starts, axes, strict=True)]
        extra = [graph.integers(each) for each in (starts, ends, axes)]
        shape = tuple(sizes[a] if a in axes else size for a, size in enumerate(x.shape))
        return graph.reshape(graph.add("Slice", [x, *extra], shape, x.dtype), output.aval.shape)
    if plain and len(axes) == 1 and how.collapsed_slice_dims == axes:
        rank = indices.numbers.ndim - 1
        expected = tuple(range(axes[0])) + tuple(range(axes[0] + rank, rank + len(x.shape) - 1))
        if how.offset_dims == expected:
            which = known(indices.numbers[..., 0].astype(np.int64))
            return graph.add("Gather", [x, which], output.aval.shape, x.dtype, axis=axes[0])
    raise NotImplementedError(f"a look-up of this kind has no counterpart here: {how}")


def _reduce(op: str) -> Callable[..., Tensor]:
    def apply(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
        (output,), (x,) = equation.outvars, _full(graph, equation, inputs)
        axes = [int(axis) for axis in equation.params["axes"]]
        if op == "ReduceSum":  # Its axes are an input, those of the others an attribute.
            given = [x, graph.integers(axes)]
            return graph.add(op, given, output.aval.shape, x.dtype, keepdims=0)
        return graph.add(op, [x], output.aval.shape, x.dtype, axes=axes, keepdims=0)

    return apply


def _argmax(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (output,), (x,) = equation.outvars, _full(graph, equation, inputs)
    (axis,) = equation.params["axes"]
    found = graph.add("ArgMax", [x], output.aval.shape, np.int64, axis=axis, keepdims=0)
    to = helper.np_dtype_to_tensor_dtype(np.dtype(output.aval.dtype))
    return graph.add("Cast", [found], found.shape, output.aval.dtype, to=to)


def _product(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    """A product of matrices, whatever axes meet in it."""
    (left, right), (output,) = _full(graph, equation, inputs), equation.outvars
    (meet_left, meet_right), (both_left, both_right) = equation.params["dimension_numbers"]
    own_left = [a for a in range(len(left.shape)) if a not in (*meet_left, *both_left)]
    own_right = [a for a in range(len(right.shape)) if a not in (*meet_right, *both_right)]

    def matrices(x: Tensor, order: Sequence[Sequence[int]]) -> Tensor:
        turned = graph.transpose(x, [axis for axes in order for axis in axes])
        sizes = tuple(math.prod(x.shape[axis] for axis in axes) for axes in order)
        return graph.reshape(turned, sizes if both_left else sizes[1:])

    a = matrices(left, (both_left, own_left, meet_left))
    b = matrices(right, (both_right, meet_right, own_right))
    shape = (*a.shape[:-1], b.shape[-1])
    return graph.reshape(graph.add("MatMul", [a, b], shape, output.aval.dtype), output.aval.shape)


def _convolution(graph: Graph, equation: Any, inputs: list[Tensor]) -> Tensor:
    (x, kernel), (output,) = _full(graph, equation, inputs), equation.outvars
    p = equation.params
    if any(d != 1 for d in p["lhs_dilation"]) or p["batch_group_count"] != 1:
        raise NotImplementedError("a transposed convolution has no counterpart in ONNX here")
    data, weights, out = p["dimension_numbers"]
    low, high = zip(*p["padding"], strict=True)
    shape = output.aval.shape
    found = graph.add(
        "Conv",
        [graph.transpose(x, data), graph.transpose(kernel, weights)],
        tuple(shape[axis] for axis in out),
        output.aval.dtype,
        strides=list(p["window_strides"]),
        pads=[*low, *high],
        dilations=list(p["rhs_dilation"]),
        group=p["feature_group_count"],
    )
    back = [out.index(axis) for axis in range(len(out))]
    return graph.transpose(found, back)


# Functions by the name under which they are compiled by themselves.
NAMED: dict[str, Callable[..., Tensor]] = {"max_pool": _max_pool}
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": _elementwise("Add"),
    "sub": _subtract,
    "mul": _elementwise("Mul"),
    "div": _elementwise("Div"),
    "max": _maximum,
    "min": _elementwise("Min"),
    "ge": _elementwise("GreaterOrEqual"),
    "gt": _elementwise("Greater"),
    "le": _elementwise("LessOrEqual"),
    "lt": _elementwise("Less"),
    "eq": _elementwise("Equal"),
    "ne": _unequal,
    "and": _elementwise("And"),
    "or": _elementwise("Or"),
    "not": _elementwise("Not"),
    "neg": _elementwise("Neg"),
    "abs": _elementwise("Abs"),
    "floor": _elementwise("Floor"),
    "round": _elementwise("Round"),
    "exp": _elementwise("Exp"),
    "log": _elementwise("Log"),
    "tanh": _elementwise("Tanh"),
    "logistic": _elementwise("Sigmoid"),
    "sqrt": _elementwise("Sqrt"),
    "rsqrt": _rsqrt,
    "select_n": _select,
    "convert_element_type": _cast,
    "stop_gradient": _same,
    "optimization_barrier": _same,
    "copy": _same,
}
OPERATIONS: dict[str, Callable[..., Any]] = ELEMENTWISE | {
    "broadcast_in_dim": _broadcast,
    "iota": _iota,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "rev": _reverse,
    "split": _split,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "gather": _gather,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "argmax": _argmax,
    "dot_general": _product,
    "conv_general_dilated": _convolution,
}
