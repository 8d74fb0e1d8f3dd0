"""Finds images that are in more than one split.

Two images show the same picture if their files are equal, or if the means of their 8 x 8 cells are
nearly equal. The latter detects copies that were resized or compressed again, but not copies that
were mirrored, cropped or recoloured.
"""

import hashlib
import io
import itertools

import numpy as np
from absl import logging
from PIL import Image

from tfds_builders.archive import abbreviate

_CELLS = 8
# Root mean square difference of the cells' means, of 255; compression changes them by less than 1.
_MAX_DIFFERENCE = 2.0
_BLOCK = 1024  # images that are compared at once with another split, to bound memory


class Duplicates:
    """The images of a data set, each reduced to its file's SHA-256 and its cells' means."""

    def __init__(self) -> None:
        """Starts without images."""
        self._names: dict[str, list[str]] = {}
        self._hashes: dict[str, list[bytes]] = {}
        self._cells: dict[str, list[np.ndarray]] = {}

    def add(self, split: str, name: str, data: bytes) -> None:
        """Adds an image.

        Args:
          split: its split.
          name: its name in the report.
          data: the bytes of its file, which is known to be decodable.
        """
        self._names.setdefault(split, []).append(f"{split}/{name}")
        self._hashes.setdefault(split, []).append(hashlib.sha256(data).digest())
        self._cells.setdefault(split, []).append(_mean_cells(data))

    def pairs(self) -> list[tuple[str, str, bool]]:
        """Returns the pairs of images in different splits that show the same picture.

        Returns:
          `split/name` of both, and whether their files are equal.
        """
        found = []
        for one, other in itertools.combinations(self._names, 2):
            for i, j in _close(np.stack(self._cells[one]), np.stack(self._cells[other])):
                equal = self._hashes[one][i] == self._hashes[other][j]
                found.append((self._names[one][i], self._names[other][j], equal))
        return found

    def report(self) -> None:
        """Logs the pairs of images in different splits that show the same picture, if any."""
        if pairs := self.pairs():
            logging.warning(
                "%d pairs of images in different splits show the same picture "
                "(%d are equal files): %s",
                len(pairs),
                sum(equal for _, _, equal in pairs),
                abbreviate([f"{one} and {other}" for one, other, _ in pairs]),
            )


def _mean_cells(data: bytes) -> np.ndarray:
    """Returns the mean red, green and blue of each cell, float32 (192,)."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (8 * _CELLS, 8 * _CELLS))  # a JPEG is decoded at a fraction of its size
        small = image.convert("RGB").resize((_CELLS, _CELLS), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel()


def _close(one: np.ndarray, other: np.ndarray) -> list[tuple[int, int]]:
    """Returns the pairs of rows of (M, K) and (N, K) arrays that are nearly equal."""
    limit = _MAX_DIFFERENCE**2 * one.shape[1]
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, of centred values, so that float32 is exact enough.
    one, other = one - 128, other - 128
    norms = (other**2).sum(1)
    pairs = []
    for start in range(0, len(one), _BLOCK):
        block = one[start : start + _BLOCK]
        distances = (block**2).sum(1)[:, None] + norms - 2 * block @ other.T
        pairs += [(start + i, j) for i, j in np.argwhere(distances <= limit).tolist()]
    return pairs
