"""Merges the faces of a photo: each pixel gets one class and belongs to one face.

Of several predictions for a pixel, that of the nearest face counts, in units of the face's size. A
wide frame also shows hair, neck and clothes of neighbors, which `faces.owners` tells apart.
"""

from collections.abc import Sequence

import numpy as np

from jax_stn_icnn.faces import resample
from jax_stn_icnn.faces.owners import assign_owners
from jax_stn_icnn.inference.resampling import Area
from jax_stn_icnn.inference.results import FaceResult

# Distances below the center of a face count less, since a body extends downward.
_BODY = 0.8


def merge_faces(
    faces: Sequence[FaceResult], photo: np.ndarray
) -> tuple[np.ndarray, list[FaceResult]]:
    """Merges the labels of all faces of a photo.

    Args:
        faces: the faces of the photo, each with its labels regardless of the others.
        photo: RGB, uint8 (height, width, 3).

    Returns:
        Class ids, uint8 (height, width), background where no face has another class; and the faces,
        each with the labels of its own pixels.
    """
    labels = np.zeros(photo.shape[:2], np.uint8)
    if len(faces) < 2:
        for face in faces:
            labels[face.area] = face.area_labels
        return labels, list(faces)
    nearest = np.full(photo.shape[:2], np.inf, np.float32)
    owners = np.full(photo.shape[:2], -1, np.int16)
    for index, face in enumerate(faces):
        distance = _distance(face)
        closer = (face.area_labels > 0) & (distance < nearest[face.area])
        np.copyto(labels[face.area], face.area_labels, where=closer)
        np.copyto(owners[face.area], np.int16(index), where=closer)
        np.copyto(nearest[face.area], distance, where=closer)
    if faces[0].is_wide:
        matrices = [face.matrix for face in faces]
        owners = assign_owners(photo, labels, matrices, faces[0].frame_size, faces[0].anatomy)
    return labels, [_restrict(face, labels, owners == i) for i, face in enumerate(faces)]


def _distance(face: FaceResult) -> np.ndarray:
    """Returns the distance from a face of each pixel of its area, in sides of its frame."""
    rows, columns = face.area
    to_frame = resample.invert_matrix(face.matrix)
    to_frame[:, 2] -= (face.frame_size - 1) / 2  # from the center
    to_frame = (to_frame / face.frame_size).astype(np.float32)
    x, y = (
        (row[0] * np.arange(columns.start, columns.stop, dtype=np.float32) + row[2])
        + row[1] * np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        for row in to_frame
    )
    return np.hypot(x, np.where(y > 0, _BODY * y, y))


def _restrict(face: FaceResult, labels: np.ndarray, own: np.ndarray) -> FaceResult:
    """Returns a face with the labels of its own pixels."""
    area = _bounds(own)
    return face.with_labels(np.where(own[area], labels[area], 0).astype(np.uint8), area)


def _bounds(mask: np.ndarray) -> Area:
    """Returns the rows and columns that contain all pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
