"""Labels of a photo's pixels, and the faces that they belong to."""

from typing import NamedTuple

import numpy as np

from jax_stn_icnn.inference.compact import CompactArray
from jax_stn_icnn.inference.resampling import Area


class Pixels(NamedTuple):
    """Labels and owners of the pixels of a photo, compressed.

    Attributes:
        photo_size: (height, width) of the photo.
        area: rows and columns of the photo outside of which everything is background.
        class_ids: class ids of the area, uint8 (rows, columns).
        owners: index of the face to which each pixel of the area belongs, background included,
            integers (rows, columns); None if all belong to face 0.
    """

    photo_size: tuple[int, ...]
    area: Area
    class_ids: CompactArray
    owners: CompactArray | None

    @classmethod
    def of(
        cls,
        photo_size: tuple[int, ...],
        area: Area,
        class_ids: np.ndarray,
        owners: np.ndarray | None = None,
    ) -> "Pixels":
        """Compresses the arrays of `Pixels`."""
        compact = None if owners is None else CompactArray.of(owners)
        return cls(photo_size, area, CompactArray.of(class_ids), compact)

    def labels(self) -> np.ndarray:
        """Returns the class ids of all pixels, uint8 (height, width)."""
        return self._in_photo(self.class_ids.restore())

    def labels_of_face(self, face: int) -> np.ndarray:
        """Returns the class ids of a face's pixels; the others are background.

        Args:
            face: index of the face.

        Returns:
            uint8 (height, width).
        """
        labels = self.class_ids.restore()
        if self.owners is not None:
            labels *= self.owners.restore() == face
        return self._in_photo(labels)

    def owners_in_photo(self) -> np.ndarray:
        """Returns the index of the face to which each pixel belongs.

        Returns:
            Integers (height, width) or, if all belong to face 0, (1, 1), which broadcasts.
        """
        if self.owners is None:
            return np.zeros((1, 1), np.uint8)
        return self._in_photo(self.owners.restore())

    def _in_photo(self, values: np.ndarray) -> np.ndarray:
        """Returns values of the area, and 0 elsewhere."""
        if values.shape == tuple(self.photo_size):
            return values
        everywhere = np.zeros(self.photo_size, values.dtype)
        everywhere[self.area] = values
        return everywhere
