"""Results of the parser: class scores of frames, resampled to the pixels of the photo.

Scores are resampled rather than labels, so that borders are as fine as the photo.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.faces import resample

Box = tuple[float, float, float, float]
Area = tuple[slice, slice]  # rows and columns of a photo
_AMBIGUOUS = 255  # not a class: the pixels of the frame around a point have different classes


@dataclasses.dataclass(frozen=True, eq=False)
class FaceResult:
    """One face of a photo.

    Boxes are (x0, y0, x1, y1), the centers of their corner pixels, in pixels of the photo, and may
    extend beyond its edges.

    Attributes:
        box: the face from forehead to chin, as detected or given. For landmarks and for
            `detect=False` it is computed from the frame.
        windows: part name -> box of the part's window; of a rotated face, the bounding box of the
            window.
        found: names of the parts that have at least one pixel.
        coarse_labels: class ids of the coarse segmentation, which covers the frame, uint8 of side
            128, or of the side of the coarse network's output (`coarse_size`, `coarse_stride`).
        matrix: pixels of the frame -> pixels of the photo, (2, 3).
        photo_size: (height, width) of the photo.
        anatomy: the classes and parts.
    """

    box: Box
    windows: dict[str, Box]
    found: tuple[str, ...]
    coarse_labels: np.ndarray = dataclasses.field(repr=False)
    matrix: np.ndarray
    photo_size: tuple[int, ...]
    anatomy: Anatomy = dataclasses.field(repr=False)
    _frame_scores: np.ndarray = dataclasses.field(repr=False)
    _area: Area = dataclasses.field(repr=False)
    _labels: np.ndarray = dataclasses.field(repr=False)

    @classmethod
    def from_frame(
        cls,
        *,
        scores: np.ndarray,
        windows: np.ndarray,
        coarse_labels: np.ndarray,
        anatomy: Anatomy,
        box: np.ndarray,
        matrix: np.ndarray,
        photo_size: tuple[int, ...],
    ) -> "FaceResult":
        """Resamples the networks' outputs for a frame to the photo.

        Args:
            scores: class scores of the frame, float32 (classes, S, S).
            windows: boxes of the parts' windows in pixels of the frame, (parts, 4).
            coarse_labels: class ids of the coarse segmentation.
            anatomy: the classes and parts.
            box: box of the face in the photo.
            matrix: pixels of the frame -> pixels of the photo.
            photo_size: (height, width) of the photo.

        Returns:
            The result of the face.
        """
        area = resample.footprint(matrix, scores.shape[1:], photo_size)
        label_map = _resample_labels(scores, matrix, area)
        present = set(draw.ids_in(label_map, anatomy.num_classes))
        return cls(
            box=_as_box(box),
            windows={
                part.name: _as_box(_bounding_box(window, matrix))
                for part, window in zip(anatomy.parts, windows, strict=True)
            },
            found=tuple(
                part.name
                for part, ids in zip(anatomy.parts, anatomy.part_ids, strict=True)
                if present.intersection(ids)
            ),
            coarse_labels=coarse_labels,
            matrix=matrix,
            photo_size=photo_size,
            anatomy=anatomy,
            _frame_scores=scores,
            _area=area,
            _labels=label_map,
        )

    @property
    def labels(self) -> np.ndarray:
        """Class ids of this face alone, uint8 (height, width) of the photo."""
        label_map = np.zeros(self.photo_size, np.uint8)
        self.paint(label_map)
        return label_map

    def paint(self, label_map: np.ndarray) -> None:
        """Writes the classes of this face, except background, into a label map of the photo."""
        np.copyto(label_map[self._area], self._labels, where=self._labels > 0)

    def scores(self) -> np.ndarray:
        """Class scores, float32 (height, width, classes); outside the frame, background's is 1."""
        num_classes = self.anatomy.num_classes
        scores = np.zeros((*self.photo_size, num_classes), np.float32)
        scores[..., 0] = 1
        for c in range(num_classes):
            scores[(*self._area, c)] = _resample_scores(
                self._frame_scores, c, self.matrix, self._area
            )
        return scores


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoResult:
    """The result of parsing a photo.

    Attributes:
        image: the photo as RGB, uint8 (height, width, 3).
        labels: class ids, uint8 (height, width); where faces overlap, those of the larger face.
        faces: the faces, in the order in which they were detected or given.
        anatomy: the classes and parts.
    """

    image: np.ndarray = dataclasses.field(repr=False)
    labels: np.ndarray = dataclasses.field(repr=False)
    faces: list[FaceResult]
    anatomy: Anatomy = dataclasses.field(repr=False)

    def mask(self, *names: str) -> np.ndarray:
        """Returns the mask of one or more classes.

        Args:
            *names: class names, such as "hair", or "upper_lip", "lower_lip".

        Returns:
            bool (height, width), True where a pixel has one of the classes.

        Raises:
            ValueError: no name is given, or one is unknown; the message lists the names.
        """
        if not names:
            raise ValueError(f"name a class: one or more of {', '.join(self.anatomy.classes)}")
        wanted = np.zeros(256, bool)
        wanted[list(self.anatomy.ids(names))] = True
        return wanted[self.labels]

    def overlay(self, alpha: float = 0.6, *, legend: bool = False) -> np.ndarray:
        """Returns the photo blended with the colours of the classes.

        Args:
            alpha: opacity of the colours, 0..1.
            legend: whether to append a legend of the classes in the photo.

        Returns:
            RGB, uint8 (height, width, 3), with more rows for a legend.
        """
        picture = draw.overlay(self.image, self.labels, self.anatomy, alpha)
        return draw.with_legend(picture, self.labels, self.anatomy) if legend else picture


def merge_labels(faces: Sequence[FaceResult], photo_size: tuple[int, ...]) -> np.ndarray:
    """Merges the label maps of all faces of a photo, larger faces in front of smaller ones.

    Args:
        faces: the faces of the photo, in any order.
        photo_size: (height, width) of the photo.

    Returns:
        Class ids, uint8 (height, width), background outside the faces.
    """
    label_map = np.zeros(photo_size, np.uint8)
    for face in sorted(faces, key=lambda face: np.linalg.det(face.matrix[:, :2])):
        face.paint(label_map)
    return label_map


def _resample_labels(frame_scores: np.ndarray, matrix: np.ndarray, area: Area) -> np.ndarray:
    """Returns the argmax of the scores that `_resample_scores` returns, without all of them."""
    if np.linalg.det(matrix[:, :2]) < 1:  # The photo is coarser than the frame, so it is small.
        return _argmax(
            [_resample_scores(frame_scores, c, matrix, area) for c in range(len(frame_scores))]
        )
    if np.array_equal(matrix[:, :2], np.eye(2)) and not np.any(matrix[:, 2] % 1):
        # The pixels of the photo are pixels of the frame.
        offset = -matrix[::-1, 2].astype(int)
        inside = [slice(e.start + n, e.stop + n) for e, n in zip(area, offset, strict=True)]
        return _argmax(frame_scores[:, *inside])
    # A bilinear score is a convex combination of the scores of four pixels: where the four have the
    # same argmax, so has every point between them. Scores are needed only where they differ.
    label_map = np.pad(_argmax(frame_scores), 1)  # Outside the frame everything is background.
    corners = label_map[:-1, :-1], label_map[:-1, 1:], label_map[1:, :-1], label_map[1:, 1:]
    agree = np.all([corner == corners[0] for corner in corners[1:]], axis=0)
    cells = np.where(agree, corners[0], _AMBIGUOUS)
    size = tuple(edge.stop - edge.start for edge in area)
    to_frame = resample.shift_origin(resample.invert_matrix(matrix), *area)
    labels = resample.sample_nearest(cells, to_frame + [[0, 0, 0.5], [0, 0, 0.5]], size)
    rows, columns = np.nonzero(labels == _AMBIGUOUS)
    pixels = np.stack([columns, rows], axis=1).astype(np.float64)
    points = resample.transform_points(to_frame, pixels)
    labels[rows, columns] = _argmax(
        [
            resample.sample_bilinear(frame_scores[c], points, outside=float(c == 0))
            for c in range(len(frame_scores))
        ]
    )
    return labels


def _argmax(scores: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """np.argmax over the first axis as uint8, class by class to save memory on large photos."""
    best = scores[0].copy()
    label_map = np.zeros(best.shape, np.uint8)
    for c in range(1, len(scores)):
        np.copyto(label_map, np.uint8(c), where=scores[c] > best)
        np.maximum(best, scores[c], out=best)
    return label_map


def _resample_scores(
    frame_scores: np.ndarray, c: int, matrix: np.ndarray, area: Area
) -> np.ndarray:
    """Resamples the scores of class `c` to an area of the photo, float32 (rows, columns)."""
    rows, columns = area
    size = rows.stop - rows.start, columns.stop - columns.start
    to_frame = resample.shift_origin(resample.invert_matrix(matrix), rows, columns)
    return resample.warp(frame_scores[c], to_frame, size, outside=float(c == 0))


def _bounding_box(window: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns the bounding box, in the photo, of a window of the frame."""
    x0, y0, x1, y1 = np.asarray(window, np.float64)
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    corners = resample.transform_points(matrix, corners)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _as_box(values: np.ndarray) -> Box:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1
