"""Merges the faces of a photo: each pixel gets one class and belongs to one face.

Of several predictions for a pixel, that of the nearest face counts, in units of the face's size. A
wide frame also shows hair, neck and clothes of neighbors, which `faces.owners` tells apart.
"""

from collections.abc import Sequence

import numpy as np

from jax_stn_icnn.faces import resample
from jax_stn_icnn.faces.owners import assign_owners, extend_owners
from jax_stn_icnn.inference.pixels import Pixels
from jax_stn_icnn.inference.results import FaceResult

# Distances below the center of a face count less, since a body extends downward.
_BODY = 0.8


def merge_faces(faces: Sequence[FaceResult], photo: np.ndarray) -> tuple[Pixels, list[FaceResult]]:
    """Merges the labels of all faces of a photo.

    Args:
        faces: the faces of the photo, each with its labels regardless of the others.
        photo: RGB, uint8 (height, width, 3).

    Returns:
        Class ids of the photo, background where no face has another class, with the faces to which
        pixels belong; and the faces, each with the labels of its own pixels.
    """
    if len(faces) == 1:
        return faces[0].pixels, list(faces)
    size = photo.shape[:2]
    everywhere = slice(0, size[0]), slice(0, size[1])
    labels = np.zeros(size, np.uint8)
    if not faces:
        return Pixels.of(size, everywhere, labels), []
    nearest = np.full(size, np.inf, np.float32)
    owners = np.full(size, -1, np.int16)
    for index, face in enumerate(faces):
        area = face.pixels.area
        own = face.pixels.class_ids.restore()
        distance = _distance(face)
        closer = (own > 0) & (distance < nearest[area])
        np.copyto(labels[area], own, where=closer)
        np.copyto(owners[area], np.int16(index), where=closer)
        np.copyto(nearest[area], distance, where=closer)
    if faces[0].is_wide:
        matrices = [face.matrix for face in faces]
        owners = assign_owners(photo, labels, matrices, faces[0].frame_size, faces[0].anatomy)
    owners = extend_owners(owners).astype(np.min_scalar_type(len(faces)))
    pixels = Pixels.of(size, everywhere, labels, owners)
    return pixels, [face.with_pixels(pixels, i) for i, face in enumerate(faces)]


def _distance(face: FaceResult) -> np.ndarray:
    """Returns the distance from a face of each pixel of its area, in sides of its frame."""
    rows, columns = face.pixels.area
    to_frame = resample.invert_matrix(face.matrix)
    to_frame[:, 2] -= (face.frame_size - 1) / 2  # from the center
    to_frame = (to_frame / face.frame_size).astype(np.float32)
    x, y = (
        (row[0] * np.arange(columns.start, columns.stop, dtype=np.float32) + row[2])
        + row[1] * np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        for row in to_frame
    )
    return np.hypot(x, np.where(y > 0, _BODY * y, y))
