"""Compressed arrays of integers: label maps, owners and rounded scores of results."""

import zlib
from typing import NamedTuple

import numpy as np

MAX_LENGTH = np.iinfo(np.uint16).max  # of a run


class CompactArray(NamedTuple):
    """An array of integers that consists of long runs of equal values, compressed.

    Run lengths are computed first, since zlib alone takes several times as long on a large photo.

    Attributes:
        data: lengths, uint16, and values of the runs in C order, compressed by zlib.
        dtype: type of the array.
        shape: shape of the array.
    """

    data: bytes
    dtype: np.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> "CompactArray":
        """Compresses an array."""
        flat = array.ravel()
        is_end = np.ones(flat.size, bool)
        np.not_equal(flat[1:], flat[:-1], out=is_end[:-1])
        is_end[MAX_LENGTH - 1 :: MAX_LENGTH] = True
        ends = np.flatnonzero(is_end)
        lengths = np.diff(ends, prepend=-1).astype(np.uint16)
        data = zlib.compress(lengths.tobytes() + flat[ends].tobytes(), level=1)
        return cls(data, array.dtype, array.shape)

    def restore(self) -> np.ndarray:
        """Returns the array."""
        runs = zlib.decompress(self.data)
        count = len(runs) // (np.dtype(np.uint16).itemsize + self.dtype.itemsize)
        lengths = np.frombuffer(runs, np.uint16, count)
        values = np.frombuffer(runs, self.dtype, count, offset=lengths.nbytes)
        return np.repeat(values, lengths).reshape(self.shape)
