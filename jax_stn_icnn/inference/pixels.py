"""Labels of a photo's pixels, and the faces that they belong to."""

from typing import NamedTuple

import numpy as np

from jax_stn_icnn.inference.compact import CompactArray
from jax_stn_icnn.inference.resampling import Area, CompactLayer, Layer

Layers = tuple[Layer | CompactLayer, ...]  # the frame, the wide frame, the far frame


class Pixels(NamedTuple):
    """Labels and owners of the pixels of a photo, compressed.

    Attributes:
        photo_size: (height, width) of the photo.
        area: rows and columns of the photo outside of which everything is background.
        class_ids: class ids of the area, uint8 (rows, columns).
        layers: for each face the frames with the scores, see `resampling`.
        owners: index of the face to which each pixel of the area belongs, background included,
            integers (rows, columns); None if all belong to face 0.
        sources: index of the face whose scores the label of each pixel is from, likewise.
    """

    photo_size: tuple[int, ...]
    area: Area
    class_ids: CompactArray
    layers: tuple[Layers, ...]
    owners: CompactArray | None = None
    sources: CompactArray | None = None

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

    def is_from(self, source: int, owner: int | None = None) -> np.ndarray:
        """Returns which pixels have their label from the scores of a face.

        Args:
            source: index of the face.
            owner: index of the face to which the pixels belong; None for all.

        Returns:
            bool (height, width).
        """
        if self.sources is None or self.owners is None:
            return np.ones(self.photo_size, bool)
        found = self.sources.restore() == source
        if owner is not None:
            found &= self.owners.restore() == owner
        return self._in_photo(found)

    def _in_photo(self, values: np.ndarray) -> np.ndarray:
        """Returns values of the area, and 0 elsewhere."""
        if values.shape == tuple(self.photo_size):
            return values
        everywhere = np.zeros(self.photo_size, values.dtype)
        everywhere[self.area] = values
        return everywhere
