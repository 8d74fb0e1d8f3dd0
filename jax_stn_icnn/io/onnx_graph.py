"""An ONNX graph under construction, and its tensors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = Any  # an int, or JAX's symbol of a size that is known at run time only
Shape = tuple[Dim, ...]

# Smallest constants that are stored as float16, where that is exact: smaller ones save little.
MIN_HALF_BYTES = 2**12


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A constant, or the output of a node.

    Attributes:
        array: The constant; None for the output of a node.
        name: The output's name in the graph; empty for a constant.
        shape: The shape. Broadcasting is deferred, so axes may have size one, and leading axes may
            be missing, compared with the value in the JAX function.
        dtype: The type.
    """

    array: np.ndarray | None
    name: str
    shape: Shape
    dtype: np.dtype

    @property
    def value(self) -> np.ndarray:
        """The array of a tensor that must be a constant."""
        assert self.array is not None
        return self.array


def constant(array: Any) -> Tensor:
    """Returns an array as a constant."""
    array = np.asarray(array)
    return Tensor(array, "", array.shape, array.dtype)


class Graph:
    """An ONNX graph under construction."""

    def __init__(self, first_input: Tensor):
        """Starts a graph.

        Args:
            first_input: The graph's first input; its first size is the symbol in all symbolic
                shapes.
        """
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._names: dict[tuple[Any, ...], str] = {}
        self._first_input = first_input
        self._batch: Tensor | None = None

    def name_of(self, tensor: Tensor) -> str:
        """Returns the name of a tensor in the graph; adds a constant when it is first named."""
        if tensor.array is None:
            return tensor.name
        array = np.ascontiguousarray(tensor.array)
        key = array.shape, array.dtype.str, array.tobytes()
        if key not in self._names:
            self._names[key] = f"constant_{len(self._names)}"
            self._store(array, self._names[key])
        return self._names[key]

    def _store(self, array: np.ndarray, name: str) -> None:
        """Adds a constant, as float16 if that is exact, as for weights that were stored so."""
        if array.dtype == np.float32 and array.nbytes >= MIN_HALF_BYTES:
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if np.array_equal(half, array):
                stored = f"{name}_half"
                self.initializers.append(numpy_helper.from_array(half, stored))
                # Runtimes compute it once, when they load the file.
                node = helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT)
                self.nodes.append(node)
                return
        self.initializers.append(numpy_helper.from_array(array, name))

    def add(
        self, op: str, inputs: Sequence[Tensor], shape: Shape, dtype: Any, **attributes: Any
    ) -> Tensor:
        """Adds a node with one output.

        Args:
            op: The node's operation, by ONNX's name.
            inputs: The node's inputs, in ONNX's order.
            shape: The output's shape; sizes may be symbols.
            dtype: The output's type.
            **attributes: The node's attributes, by ONNX's names.

        Returns:
            The output.
        """
        name = f"{op}_{len(self.nodes)}"
        names = [self.name_of(tensor) for tensor in inputs]
        self.nodes.append(helper.make_node(op, names, [name], name=name, **attributes))
        return Tensor(None, name, tuple(shape), np.dtype(dtype))

    def integers(self, values: Sequence[int]) -> Tensor:
        """Returns int64 numbers, as ONNX takes shapes and axes."""
        return constant(np.array(values, np.int64))

    def sizes(self, shape: Shape) -> Tensor:
        """Returns a shape as int64 numbers, computed at run time if it has a symbol."""
        if all(isinstance(size, int) for size in shape):
            return self.integers(shape)
        sizes = [self._size(size) for size in shape]
        return self.add("Concat", sizes, (len(shape),), np.int64, axis=0)

    def _size(self, size: Dim) -> Tensor:
        if isinstance(size, int):
            return self.integers([size])
        if self._batch is None:
            self._batch = self.add("Shape", [self._first_input], (1,), np.int64, start=0, end=1)
        factor = size // self._first_input.shape[0]
        assert factor * self._first_input.shape[0] == size, size
        if factor == 1:
            return self._batch
        return self.add("Mul", [self._batch, self.integers([int(factor)])], (1,), np.int64)

    def reshape(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Returns a tensor in another shape.

        Args:
            tensor: The tensor.
            shape: The new shape, of equally many numbers; at most one size is a symbol.

        Returns:
            The reshaped tensor, a constant if `tensor` is one.
        """
        if tensor.shape == tuple(shape):
            return tensor
        if tensor.array is not None:
            return constant(tensor.array.reshape(shape))
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        assert sizes.count(-1) <= 1, shape
        return self.add("Reshape", [tensor, self.integers(sizes)], shape, tensor.dtype)

    def transpose(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """Returns a tensor with its axes in another order.

        Args:
            tensor: The tensor.
            order: For each axis of the result the axis of `tensor`, as in `numpy.transpose`.

        Returns:
            The transposed tensor, a constant if `tensor` is one.
        """
        if list(order) == sorted(order):
            return tensor
        if tensor.array is not None:
            return constant(tensor.array.transpose(order))
        shape = tuple(tensor.shape[axis] for axis in order)
        return self.add("Transpose", [tensor], shape, tensor.dtype, perm=list(order))

    def expand(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Returns a tensor broadcast to a shape.

        Args:
            tensor: The tensor.
            shape: The shape; sizes may be symbols.

        Returns:
            The tensor itself if it has that shape, otherwise the output of an `Expand` node.
        """
        if tensor.shape == tuple(shape):
            return tensor
        return self.add("Expand", [tensor, self.sizes(shape)], shape, tensor.dtype)
