"""Results of the parser: labels and scores of a photo's pixels, by face and of the photo."""

import dataclasses

import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.faces import framing, resample
from jax_stn_icnn.inference.resampling import Area, is_inside, resample_labels, resample_scores

Box = tuple[float, float, float, float]


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
    _wide_scores: np.ndarray | None = dataclasses.field(repr=False)
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
        wide_scores: np.ndarray | None = None,
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
            wide_scores: scores of the global classes in the wide frame, float32 (global classes,
                rows, columns); without it, everything outside the frame is background.

        Returns:
            The result of the face.
        """
        area = resample.footprint(matrix, scores.shape[1:], photo_size)
        label_map = resample_labels(scores, matrix, area)
        if wide_scores is not None:
            inner_area, inner_labels = area, label_map
            wide_matrix = framing.wide_frame(matrix, scores.shape[-1], wide_scores.shape[-1])
            area = resample.footprint(wide_matrix, wide_scores.shape[1:], photo_size)
            global_ids = np.array(anatomy.global_ids, np.uint8)
            label_map = global_ids[resample_labels(wide_scores, wide_matrix, area)]
            np.copyto(
                label_map[_within(inner_area, area)],
                inner_labels,
                where=is_inside(scores.shape[1:], matrix, inner_area),
            )
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
            _wide_scores=wide_scores,
            _area=area,
            _labels=label_map,
        )

    @property
    def frame_size(self) -> int:
        """Side of the frame in its own pixels."""
        return self._frame_scores.shape[-1]

    @property
    def is_wide(self) -> bool:
        """Whether the face has labels outside the frame, from a wide frame."""
        return self._wide_scores is not None

    @property
    def labels(self) -> np.ndarray:
        """Class ids of this face's pixels, uint8 (height, width) of the photo.

        Pixels of other faces' classes are background: each pixel belongs to one face at most, and
        the faces' labels together are those of the photo.
        """
        label_map = np.zeros(self.photo_size, np.uint8)
        label_map[self._area] = self._labels
        return label_map

    @property
    def area(self) -> Area:
        """Rows and columns of the photo outside of which the face has no pixels."""
        return self._area

    @property
    def area_labels(self) -> np.ndarray:
        """The `labels` of `area`."""
        return self._labels

    def with_labels(self, label_map: np.ndarray, area: Area) -> "FaceResult":
        """Returns the same face with other labels.

        Args:
            label_map: class ids, uint8 (rows, columns) of the area.
            area: rows and columns of the photo outside of which the face has no pixels.
        """
        return dataclasses.replace(self, _labels=label_map, _area=area)

    def scores(self) -> np.ndarray:
        """Class scores, float32 (height, width, classes), regardless of other faces.

        Outside the frame, or the wide frame if there is one, the score of background is 1.
        """
        size = self._frame_scores.shape[1:]
        area = resample.footprint(self.matrix, size, self.photo_size)
        scores = np.zeros((*self.photo_size, self.anatomy.num_classes), np.float32)
        scores[..., 0] = 1
        where = np.ones((1, 1), bool)
        if self._wide_scores is not None:
            self._add_wide_scores(scores)
            where = is_inside(size, self.matrix, area)
        for c in range(self.anatomy.num_classes):
            values = resample_scores(self._frame_scores, c, self.matrix, area)
            np.copyto(scores[(*area, c)], values, where=where)
        return scores

    def _add_wide_scores(self, scores: np.ndarray) -> None:
        """Writes the scores of the global classes into the photo's scores."""
        assert self._wide_scores is not None
        size = self._wide_scores.shape[1:]
        matrix = framing.wide_frame(self.matrix, self._frame_scores.shape[-1], size[-1])
        area = resample.footprint(matrix, size, self.photo_size)
        for place, c in enumerate(self.anatomy.global_ids):
            scores[(*area, c)] = resample_scores(self._wide_scores, place, matrix, area)


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoResult:
    """The result of parsing a photo.

    Attributes:
        image: the photo as RGB, uint8 (height, width, 3).
        labels: class ids, uint8 (height, width), those of all faces.
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


def _within(area: Area, outer: Area) -> Area:
    """Returns the slices of an area in an array of a larger area."""
    rows, columns = (
        slice(inner.start - edge.start, inner.stop - edge.start)
        for inner, edge in zip(area, outer, strict=True)
    )
    return rows, columns


def _bounding_box(window: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns the bounding box, in the photo, of a window of the frame."""
    x0, y0, x1, y1 = np.asarray(window, np.float64)
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    corners = resample.transform_points(matrix, corners)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _as_box(values: np.ndarray) -> Box:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1
