"""Reads a PyTorch state dict without PyTorch and without executing code of the file.

The format is the one that `torch.save` wrote before PyTorch 1.6: pickles of a magic number, a
version, the machine's types, the state dict, and the keys of its storages; then each storage, its
length first. All that the pickles can name is `OrderedDict`, the function that rebuilds a tensor,
for which a function of this module stands, and the types of storages, for which text stands.
"""

import collections
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES: dict[str, np.dtype] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Storage(NamedTuple):
    """The numbers of one or more tensors, which follow the pickles."""

    key: str
    dtype: np.dtype
    length: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides are counted in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """Stands for `torch._utils._rebuild_tensor_v2`."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor has a wrong storage, offset, shape or stride")
    if len(shape) != len(strides):
        raise pickle.UnpicklingError(f"a tensor has the shape {shape} and the strides {strides}")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    """Executes no code of the file."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # A function of its own each time: a pickle may change the attributes of what it names.
            return lambda *arguments: _tensor(*arguments)
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"it contains {module}.{name}, which no state dict needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, name, key, _, length, _ = pid
        if kind != "storage" or not isinstance(length, int):
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no storage")
        return _Storage(key, _DTYPES[name], length)


def read_state_dict(data: bytes, source: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a state dict.

    Args:
        data: The contents of the file.
        source: Name of the file, for messages.

    Returns:
        Name -> array.

    Raises:
        ValueError: The file is truncated, or is not a state dict in this format, or contains
            anything but tensors.
    """
    file = io.BytesIO(data)
    try:
        magic, _, machine, state, keys = (_Unpickler(file).load() for _ in range(5))
        if magic != _MAGIC or not machine["little_endian"]:
            raise ValueError("it was not written by PyTorch, or by a big-endian machine")
        storages = _read_storages(file, state, keys)
        return {name: _array(tensor, storages) for name, tensor in state.items()}
    # Whatever the bytes are, the pickle machine fails with one of these.
    except (
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        EOFError,
        OverflowError,
    ) as error:
        raise ValueError(f"{source} is not a PyTorch state dict of tensors: {error}") from error


def _read_storages(
    file: BinaryIO, state: Mapping[str, _Tensor], keys: list[str]
) -> dict[str, np.ndarray]:
    """Returns the numbers of each storage, which stand in the order of `keys`."""
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    arrays = {}
    for key in keys:
        length, dtype = storages[key].length, storages[key].dtype
        if int.from_bytes(file.read(8), "little") != length:
            raise ValueError(f"the storage {key} has another length than in the state dict")
        # Raises ValueError if the file has fewer bytes.
        arrays[key] = np.frombuffer(file.read(length * dtype.itemsize), dtype, length)
    return arrays


def _array(tensor: _Tensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    numbers = storages[tensor.storage.key][tensor.offset :]
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if min(tensor.shape, default=1) < 1 or last >= numbers.size:
        raise ValueError(f"a tensor of shape {tensor.shape} exceeds its storage")
    strides = [step * numbers.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False).copy()
