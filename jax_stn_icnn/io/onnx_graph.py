"""A graph of ONNX as it grows, and the values in it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = Any  # an int, or jax's symbol for a size that is not known yet
Shape = tuple[Dim, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value on its way.

    Attributes:
        array: its numbers, where they are known.
        name: in the graph, where they are not.
        shape: as it is there; of an array, or of a tensor that has yet to be broadcast, sizes may
            be one where the function's own value has more.
        dtype: of its numbers.
    """

    array: np.ndarray | None
    name: str
    shape: Shape
    dtype: np.dtype

    @property
    def numbers(self) -> np.ndarray:
        """Those of a constant."""
        assert self.array is not None
        return self.array


def known(array: Any) -> Tensor:
    """A constant."""
    array = np.asarray(array)
    return Tensor(array, "", array.shape, array.dtype)


class Graph:
    """The graph of ONNX as it grows."""

    def __init__(self, frames: Tensor):
        """Takes the input whose first size is the symbol in all shapes."""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._names: dict[tuple[Any, ...], str] = {}
        self._frames = frames
        self._batch: Tensor | None = None

    def name_of(self, tensor: Tensor) -> str:
        """The name of a tensor; a constant is put into the graph, once."""
        if tensor.array is None:
            return tensor.name
        array = np.ascontiguousarray(tensor.array)
        key = array.shape, array.dtype.str, array.tobytes()
        if key not in self._names:
            self._names[key] = f"constant_{len(self._names)}"
            self.initializers.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def add(
        self, op: str, inputs: Sequence[Tensor], shape: Shape, dtype: Any, **attributes: Any
    ) -> Tensor:
        """Adds a node of one output.

        Args:
            op: the node's operation, by ONNX's name.
            inputs: of the node, in ONNX's order.
            shape: of the output; sizes may be symbols.
            dtype: of the output's numbers.
            **attributes: of the node, by ONNX's names.

        Returns:
            The output.
        """
        name = f"{op}_{len(self.nodes)}"
        names = [self.name_of(one) for one in inputs]
        self.nodes.append(helper.make_node(op, names, [name], name=name, **attributes))
        return Tensor(None, name, tuple(shape), np.dtype(dtype))

    def integers(self, values: Sequence[int]) -> Tensor:
        """Shapes, axes and the like."""
        return known(np.array(values, np.int64))

    def sizes(self, shape: Shape) -> Tensor:
        """A shape as numbers at run time."""
        if all(isinstance(size, int) for size in shape):
            return self.integers(shape)
        each = [self._size(size) for size in shape]
        return self.add("Concat", each, (len(shape),), np.int64, axis=0)

    def _size(self, size: Dim) -> Tensor:
        if isinstance(size, int):
            return self.integers([size])
        if self._batch is None:
            self._batch = self.add("Shape", [self._frames], (1,), np.int64, start=0, end=1)
        factor = size // self._frames.shape[0]
        assert factor * self._frames.shape[0] == size, size
        if factor == 1:
            return self._batch
        return self.add("Mul", [self._batch, self.integers([int(factor)])], (1,), np.int64)

    def reshape(self, tensor: Tensor, shape: Shape) -> Tensor:
        """The same numbers in another shape.

        Args:
            tensor: a constant, or what a node gives.
            shape: the new one, for equally many numbers; one size at most is a symbol.

        Returns:
            The tensor in that shape; of a constant a constant.
        """
        if tensor.shape == tuple(shape):
            return tensor
        if tensor.array is not None:
            return known(tensor.array.reshape(shape))
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        assert sizes.count(-1) <= 1, shape
        return self.add("Reshape", [tensor, self.integers(sizes)], shape, tensor.dtype)

    def transpose(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """Axes in another order.

        Args:
            tensor: a constant, or what a node gives.
            order: for each axis of the result the tensor's axis, as `numpy.transpose` takes it.

        Returns:
            The tensor so transposed; of a constant a constant.
        """
        if list(order) == sorted(order):
            return tensor
        if tensor.array is not None:
            return known(tensor.array.transpose(order))
        shape = tuple(tensor.shape[axis] for axis in order)
        return self.add("Transpose", [tensor], shape, tensor.dtype, perm=list(order))

    def whole(self, tensor: Tensor, shape: Shape) -> Tensor:
        """A tensor at its full shape.

        Args:
            tensor: a constant, or what a node gives.
            shape: what it is to be broadcast to; sizes may be symbols.

        Returns:
            The tensor itself if it has that shape, else the output of a node that broadcasts it.
        """
        if tensor.shape == tuple(shape):
            return tensor
        return self.add("Expand", [tensor, self.sizes(shape)], shape, tensor.dtype)
