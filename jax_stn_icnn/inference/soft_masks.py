"""Soft masks: the scores of a set of classes at the photo's size, without those of other classes.

A photo of 24 megapixels is resampled in strips, so that only the result has its size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jax_stn_icnn.faces import resample
from jax_stn_icnn.inference.pixels import Pixels
from jax_stn_icnn.inference.resampling import (
    Area,
    CompactLayer,
    Layer,
    is_inside,
    restore_layers,
    size_of,
    within,
)

_STRIP_PIXELS = 1 << 20
# The values of a mask's pixels are at least this one, the first above 0.5.
_ABOVE_HALF = np.nextafter(np.float32(0.5), np.float32(1))


def soft_mask(
    layers_of_faces: Mapping[int, Sequence[Layer | CompactLayer]],
    pixels: Pixels,
    class_ids: Sequence[int],
) -> np.ndarray:
    """Returns the soft mask of a set of classes.

    At each pixel it is the sum of the classes' scores divided by the sum of all scores, those of
    the face to which the pixel belongs. Values that contradict the labels are limited to 0.5: where
    three classes have the scores 0.4, 0.3 and 0.3, the first is the label, but not above 0.5.

    Args:
        layers_of_faces: index of a face -> its frames, as in `resampling`. The pixels of other
            faces are background.
        pixels: labels and owners.
        class_ids: ids of the classes.

    Returns:
        float32 (height, width), 0..1, greater than 0.5 exactly where the label is one of the
        classes.
    """
    size = pixels.photo_size
    soft = np.full(size, float(0 in class_ids), np.float32)
    owners = pixels.owners_in_photo()
    for face, layers in layers_of_faces.items():
        planes = [_Planes.of(layer, class_ids) for layer in restore_layers(layers)]
        for strip in _strips(planes, planes[-1].layer.area(size)):
            own = owners[strip] == face if owners.shape == size else np.True_
            np.copyto(soft[strip], _resampled(planes, strip, size), where=own)
    wanted = np.zeros(256, bool)
    wanted[list(class_ids)] = True
    if len(layers_of_faces) == 1:
        labels = pixels.labels_of_face(*layers_of_faces)
    else:
        labels = pixels.labels()
    for rows in _row_slices(slice(0, size[0]), _STRIP_PIXELS // size[1]):
        inside = wanted[labels[rows]]
        lowest, highest = _ABOVE_HALF * inside, np.where(inside, np.float32(1), np.float32(0.5))
        np.clip(soft[rows], lowest, highest, out=soft[rows])
    return soft


def cut_out(image: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Returns an image with the opacity of a soft mask.

    Args:
        image: RGB, uint8 (height, width, 3).
        soft: float32 (height, width), 0..1.

    Returns:
        RGBA, uint8 (height, width, 4). The opacity is greater than 127 exactly where the soft mask
        is greater than 0.5; where it is 0, so is the colour.
    """
    height, width = soft.shape
    picture = np.empty((height, width, 4), np.uint8)
    for rows in _row_slices(slice(0, height), _STRIP_PIXELS // max(width, 1)):
        # Halves are rounded down, so that 0.5 becomes 127.
        alpha = np.ceil(soft[rows] * 255 - 0.5).astype(np.uint8)[..., None]
        picture[rows] = np.where(alpha > 0, np.dstack([image[rows], alpha]), 0)
    return picture


class _Planes(NamedTuple):
    """Sums of scores in a frame.

    Attributes:
        layer: the frame.
        wanted: sum of the wanted classes' scores, float32 (side, side).
        total: sum of all scores.
        outside: value of `wanted` outside of the frame, where the score of background is 1.
    """

    layer: Layer
    wanted: np.ndarray
    total: np.ndarray
    outside: float

    @classmethod
    def of(cls, layer: Layer, class_ids: Sequence[int]) -> "_Planes":
        channels = [c for c, i in enumerate(layer.class_ids) if i in class_ids]
        wanted = layer.scores[channels].sum(axis=0, dtype=np.float32)
        return cls(layer, wanted, layer.scores.sum(axis=0), float(0 in class_ids))

    def shares(self, area: Area) -> np.ndarray:
        """Returns the wanted classes' share of all scores, float32 (rows, columns) of an area."""
        to_frame = resample.shift_origin(resample.invert_matrix(self.layer.matrix), *area)
        shares = resample.warp(self.wanted, to_frame, size_of(area), outside=self.outside)
        shares /= resample.warp(self.total, to_frame, size_of(area), outside=1)
        return shares


def _resampled(frames: Sequence[_Planes], strip: Area, photo_size: tuple[int, ...]) -> np.ndarray:
    """Returns the shares in a strip of the last frame's area; the first frame there counts."""
    shares = frames[-1].shares(strip)
    for frame in reversed(frames[:-1]):
        area = _overlap(frame.layer.area(photo_size), strip)
        if 0 not in size_of(area):
            inside = is_inside(frame.layer, area)
            np.copyto(shares[within(area, strip)], frame.shares(area), where=inside)
    return shares


def _strips(frames: Sequence[_Planes], area: Area) -> Iterator[Area]:
    """Yields parts of an area, so large that each takes little memory.

    If a frame is finer than the photo, it is small in the photo, and it is reduced in one piece:
    the means of its pixels would differ between strips.
    """
    rows, columns = area
    num_rows = _STRIP_PIXELS // max(columns.stop - columns.start, 1)
    if any(np.linalg.det(frame.layer.matrix[:, :2]) < 1 for frame in frames):
        num_rows = rows.stop - rows.start
    for strip in _row_slices(rows, num_rows):
        yield strip, columns


def _row_slices(rows: slice, num_rows: int) -> Iterator[slice]:
    """Yields parts of at most so many rows, and one at least."""
    step = max(num_rows, 1)
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))


def _overlap(one: Area, other: Area) -> Area:
    """Returns the common part of two areas, possibly empty."""
    rows, columns = (
        slice(max(a.start, b.start), max(min(a.stop, b.stop), a.start, b.start))
        for a, b in zip(one, other, strict=True)
    )
    return rows, columns
