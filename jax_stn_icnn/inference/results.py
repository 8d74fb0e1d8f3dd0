"""What the parser says of a photo: class scores of frames, carried to the photo's own pixels.

Scores are resampled, not labels, so that borders are as fine as the photo is.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.faces import resample

Box = tuple[float, float, float, float]
Area = tuple[slice, slice]  # rows and columns of a photo
_OPEN = 255  # no class: where pixels of the frame disagree


@dataclasses.dataclass(frozen=True, eq=False)
class FaceResult:
    """One face of a photo.

    Boxes are (x0, y0, x1, y1), the centres of their corner pixels, in pixels of the photo, and may
    reach beyond its edges.

    Attributes:
        box: the face from forehead to chin: as found or given, or, where landmarks were given or
            the whole photo was taken, where the detector's box would be.
        windows: part name -> box of the window that was cut for it; where the face is turned, the
            box around that window.
        found: the names of the parts of which there is at least a pixel.
        rough: class ids of the rough mask, which covers the frame, uint8 (128, 128), or of the side
            that the model's `coarse_size` says.
        matrix: pixels of the frame, which the networks saw -> pixels of the photo, (2, 3).
        photo_size: (height, width) of the photo.
        anatomy: what the classes and parts are.
    """

    box: Box
    windows: dict[str, Box]
    found: tuple[str, ...]
    rough: np.ndarray = dataclasses.field(repr=False)
    matrix: np.ndarray
    photo_size: tuple[int, ...]
    anatomy: Anatomy = dataclasses.field(repr=False)
    _frame_scores: np.ndarray = dataclasses.field(repr=False)
    _area: Area = dataclasses.field(repr=False)
    _labels: np.ndarray = dataclasses.field(repr=False)

    @classmethod
    def of_frame(
        cls,
        *,
        scores: np.ndarray,
        windows: np.ndarray,
        rough: np.ndarray,
        anatomy: Anatomy,
        box: np.ndarray,
        matrix: np.ndarray,
        photo_size: tuple[int, ...],
    ) -> "FaceResult":
        """Carries what the networks say of a frame to the photo.

        Args:
            scores: the classes' scores in the frame, float32 (classes, S, S).
            windows: the parts' windows, boxes in pixels of the frame, (parts, 4).
            rough: class ids of the rough mask.
            anatomy: what the classes and parts are.
            box: the face's box in the photo.
            matrix: pixels of the frame -> pixels of the photo.
            photo_size: (height, width) of the photo.

        Returns:
            The face.
        """
        area = resample.footprint(matrix, scores.shape[1:], photo_size)
        label_map = _argmax(scores, matrix, area)
        present = set(draw.ids_in(label_map, anatomy.num_classes))
        return cls(
            box=_as_box(box),
            windows={
                part.name: _as_box(_box_around(window, matrix))
                for part, window in zip(anatomy.parts, windows, strict=True)
            },
            found=tuple(
                part.name
                for part, ids in zip(anatomy.parts, anatomy.part_ids, strict=True)
                if present.intersection(ids)
            ),
            rough=rough,
            matrix=matrix,
            photo_size=photo_size,
            anatomy=anatomy,
            _frame_scores=scores,
            _area=area,
            _labels=label_map,
        )

    @property
    def labels(self) -> np.ndarray:
        """Class ids of this face alone, uint8 of the photo's (height, width)."""
        label_map = np.zeros(self.photo_size, np.uint8)
        self.paint(label_map)
        return label_map

    def paint(self, label_map: np.ndarray) -> None:
        """Writes this face's classes, but not its background, into the photo's label map."""
        part = self._labels > 0
        label_map[self._area][part] = self._labels[part]

    def scores(self) -> np.ndarray:
        """Scores, float32 (height, width, classes); outside the frame, background."""
        num_classes = self.anatomy.num_classes
        scores = np.zeros((*self.photo_size, num_classes), np.float32)
        scores[..., 0] = 1
        for c in range(num_classes):
            scores[(*self._area, c)] = _carry(self._frame_scores, c, self.matrix, self._area)
        return scores


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoResult:
    """A photo's parse.

    Attributes:
        image: the photo as RGB, uint8 (height, width, 3).
        labels: class ids, uint8 (height, width); where faces overlap, the larger is in front.
        faces: the faces in it, in the order found or given.
        anatomy: what the classes are.
    """

    image: np.ndarray = dataclasses.field(repr=False)
    labels: np.ndarray = dataclasses.field(repr=False)
    faces: list[FaceResult]
    anatomy: Anatomy = dataclasses.field(repr=False)

    def mask(self, *names: str) -> np.ndarray:
        """Where any of some classes is.

        Args:
            *names: of classes, such as "hair", or "upper_lip", "lower_lip".

        Returns:
            bool (height, width).

        Raises:
            ValueError: no name is given, or one is unknown; the message lists those that are known.
        """
        if not names:
            raise ValueError(f"name a class: one or more of {', '.join(self.anatomy.classes)}")
        wanted = np.zeros(256, bool)
        wanted[list(self.anatomy.ids(names))] = True
        return wanted[self.labels]

    def overlay(self, alpha: float = 0.6, *, legend: bool = False) -> np.ndarray:
        """The photo with the classes' colours over it.

        Args:
            alpha: 0 shows the photo only, 1 the colours only.
            legend: whether the names of the classes found stand below it, in their colours.

        Returns:
            RGB, uint8 (height, width, 3), with more rows for a legend.
        """
        picture = draw.overlay(self.image, self.labels, self.anatomy, alpha)
        return draw.with_legend(picture, self.labels, self.anatomy) if legend else picture


def merged(faces: Sequence[FaceResult], photo_size: tuple[int, ...]) -> np.ndarray:
    """Class ids of all faces of a photo, the larger in front.

    Args:
        faces: those of the photo, in any order.
        photo_size: (height, width) of the photo.

    Returns:
        uint8 (height, width), background where there is no face.
    """
    label_map = np.zeros(photo_size, np.uint8)
    for face in sorted(faces, key=lambda face: np.linalg.det(face.matrix[:, :2])):
        face.paint(label_map)
    return label_map


def _argmax(frame_scores: np.ndarray, matrix: np.ndarray, area: Area) -> np.ndarray:
    """Class ids in an area of the photo, of the scores as `_carry` carries them."""
    if np.linalg.det(matrix[:, :2]) < 1:  # The photo is coarser than the frame: it is small.
        return _best([_carry(frame_scores, c, matrix, area) for c in range(len(frame_scores))])
    if np.array_equal(matrix[:, :2], np.eye(2)) and not np.any(matrix[:, 2] % 1):
        # A picture that was cut to the frame's size: its pixels are the frame's.
        to_frame = -matrix[::-1, 2].astype(int)
        inside = [slice(e.start + n, e.stop + n) for e, n in zip(area, to_frame, strict=True)]
        return _best(frame_scores[:, *inside])
    # Bilinear scores lie between those of four pixels: a class that is the best of all four is the
    # best between them. So only where the four disagree are scores needed.
    inner = _best(frame_scores)
    label_map = np.pad(inner, 1)  # Beyond the frame all is background.
    corners = label_map[:-1, :-1], label_map[:-1, 1:], label_map[1:, :-1], label_map[1:, 1:]
    agree = np.all([corner == corners[0] for corner in corners[1:]], axis=0)
    cells = np.where(agree, corners[0], _OPEN)
    size = tuple(edge.stop - edge.start for edge in area)
    to_frame = resample.shift(resample.invert(matrix), *area)
    found = resample.look_up(cells, to_frame + [[0, 0, 0.5], [0, 0, 0.5]], size)
    rows, columns = np.nonzero(found == _OPEN)
    points = resample.apply(to_frame, np.stack([columns, rows], axis=1).astype(np.float64))
    found[rows, columns] = _best(
        [
            resample.look_up_bilinear(frame_scores[c], points, outside=float(c == 0))
            for c in range(len(frame_scores))
        ]
    )
    return found


def _best(scores: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """The class of the highest score; one class at a time, for photos are large."""
    best = scores[0].copy()
    label_map = np.zeros(best.shape, np.uint8)
    for c in range(1, len(scores)):
        np.copyto(label_map, np.uint8(c), where=scores[c] > best)
        np.maximum(best, scores[c], out=best)
    return label_map


def _carry(frame_scores: np.ndarray, c: int, matrix: np.ndarray, area: Area) -> np.ndarray:
    """A class's scores in an area of the photo, float32; outside the frame all is background."""
    rows, columns = area
    size = rows.stop - rows.start, columns.stop - columns.start
    to_frame = resample.shift(resample.invert(matrix), rows, columns)
    return resample.pull(frame_scores[c], to_frame, size, outside=float(c == 0))


def _box_around(window: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The box, in the photo, around a window of the frame."""
    x0, y0, x1, y1 = np.asarray(window, np.float64)
    corners = resample.apply(matrix, np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]))
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _as_box(values: np.ndarray) -> Box:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1
