"""Merges the faces of a photo: each pixel gets one class and belongs to one face.

Of several predictions for a pixel, that of the nearest face counts, in units of the face's size. A
wide frame also shows hair, neck and clothes of neighbors, which `faces.owners` tells apart.
"""

from collections.abc import Sequence

import numpy as np

from jax_stn_icnn.faces import resample
from jax_stn_icnn.faces.owners import assign_owners, extend_owners
from jax_stn_icnn.inference.compact import CompactArray
from jax_stn_icnn.inference.pixels import Pixels
from jax_stn_icnn.inference.resampling import Area
from jax_stn_icnn.inference.results import FaceResult

# Distances below the center of a face count less, since a body extends downward.
_BODY = 0.8


def merge_faces(
    faces: Sequence[FaceResult], photo: np.ndarray, neighbors: Sequence[np.ndarray] = ()
) -> tuple[Pixels, list[FaceResult]]:
    """Merges the labels of all faces of a photo.

    Args:
        faces: the faces of the photo, each with its labels regardless of the others.
        photo: RGB, uint8 (height, width, 3).
        neighbors: frame -> photo, (2, 3), of people in the photo that are not parsed; their pixels
            become background.

    Returns:
        Class ids of the photo, background where no face has another class, with the faces to which
        pixels belong; and the faces, each with the labels of its own pixels.
    """
    if len(faces) == 1 and not neighbors:
        return faces[0].pixels, list(faces)
    size = photo.shape[:2]
    everywhere = slice(0, size[0]), slice(0, size[1])
    labels = np.zeros(size, np.uint8)
    if not faces:
        return Pixels(size, everywhere, CompactArray.of(labels), ()), []
    nearest = np.full(size, np.inf, np.float32)
    sources = np.full(size, -1, np.int16)
    for index, face in enumerate(faces):
        area = face.pixels.area
        own = face.pixels.class_ids.restore()
        distance = _distance(face.matrix, face.frame_size, area)
        closer = (own > 0) & (distance < nearest[area])
        np.copyto(labels[area], own, where=closer)
        np.copyto(sources[area], np.int16(index), where=closer)
        np.copyto(nearest[area], distance, where=closer)
    frame_size = faces[0].frame_size
    if faces[0].is_wide:
        matrices = [*(face.matrix for face in faces), *neighbors]
        owners = assign_owners(photo, labels, matrices, frame_size, faces[0].anatomy)
    else:
        owners = sources.copy()
        for index, matrix in enumerate(neighbors, len(faces)):
            distance = _distance(matrix, frame_size, everywhere)
            closer = (owners >= 0) & (distance < nearest)
            np.copyto(owners, np.int16(index), where=closer)
            np.copyto(nearest, distance, where=closer)
    others = owners >= len(faces)
    labels[others] = 0
    sources[others] = owners[others]
    pixels = Pixels(
        size,
        everywhere,
        CompactArray.of(labels),
        tuple(face.pixels.layers[0] for face in faces),
        CompactArray.of(extend_owners(owners)),
        CompactArray.of(extend_owners(sources)),
    )
    return pixels, [face.with_pixels(pixels, i) for i, face in enumerate(faces)]


def _distance(matrix: np.ndarray, frame_size: int, area: Area) -> np.ndarray:
    """Returns the distance from a face of each pixel of an area, in sides of the face's frame."""
    rows, columns = area
    to_frame = resample.invert_matrix(matrix)
    to_frame[:, 2] -= (frame_size - 1) / 2  # from the center
    to_frame = (to_frame / frame_size).astype(np.float32)
    x, y = (
        (row[0] * np.arange(columns.start, columns.stop, dtype=np.float32) + row[2])
        + row[1] * np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        for row in to_frame
    )
    return np.hypot(x, np.where(y > 0, _BODY * y, y))
