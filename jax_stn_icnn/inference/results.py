"""Results of the parser: labels and scores of a photo's pixels, by face and of the photo."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.faces import framing, resample
from jax_stn_icnn.inference.resampling import Area, Layer, labels_of_layers, scores_of_layers

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class FaceResult:
    """One face of a photo.

    Boxes are (x0, y0, x1, y1), the centers of their corner pixels, in pixels of the photo, and may
    extend beyond its edges.

    Attributes:
        box: the face from forehead to chin, as detected or given. For landmarks and for
            `detect=False` it is computed from the frame.
        score: the detector's score of the face, 0..1; None if the detector has none, or if the face
            was given.
        landmarks: (x, y) of the centers of eye 1 and eye 2, the tip of the nose, and the corners 1
            and 2 of the mouth, in pixels of the photo, as detected or given, float64 (5, 2); None
            if the face was located by a box.
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
    score: float | None
    landmarks: np.ndarray | None = dataclasses.field(repr=False)
    windows: dict[str, Box]
    found: tuple[str, ...]
    coarse_labels: np.ndarray = dataclasses.field(repr=False)
    matrix: np.ndarray
    photo_size: tuple[int, ...]
    anatomy: Anatomy = dataclasses.field(repr=False)
    _layers: tuple[Layer, ...] = dataclasses.field(repr=False)  # the frame first
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
        wide_scores: Sequence[np.ndarray] = (),
        landmarks: np.ndarray | None = None,
        score: float | None = None,
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
            wide_scores: scores of the global classes in the wide frame, and in the far frame,
                float32 (global classes, rows, columns); around the last of the given frames
                everything is background.
            landmarks: as in the class.
            score: as in the class.

        Returns:
            The result of the face.
        """
        layers = [Layer(scores, matrix, tuple(range(anatomy.num_classes)))]
        for outer in wide_scores:
            inner = layers[-1]
            outer_matrix = framing.wide_frame(inner.matrix, inner.side, outer.shape[-1])
            layers.append(Layer(outer, outer_matrix, anatomy.global_ids))
        label_map, area = labels_of_layers(layers, photo_size)
        present = set(draw.ids_in(label_map, anatomy.num_classes))
        return cls(
            box=_as_box(box),
            score=score,
            landmarks=landmarks,
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
            _layers=tuple(layers),
            _area=area,
            _labels=label_map,
        )

    @property
    def frame_size(self) -> int:
        """Side of the frame in its own pixels."""
        return self._layers[0].side

    @property
    def is_wide(self) -> bool:
        """Whether the face has labels outside the frame, from a wide frame."""
        return len(self._layers) > 1

    @property
    def frames(self) -> list[tuple[np.ndarray, int]]:
        """The frame, the wide frame and the far frame, as far as they are parsed.

        For each the matrix, pixels of the frame -> pixels of the photo, and its side in pixels.
        """
        return [(layer.matrix, layer.side) for layer in self._layers]

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

        Outside of all frames of the face, the score of background is 1.
        """
        return scores_of_layers(self._layers, self.photo_size)


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


def _bounding_box(window: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns the bounding box, in the photo, of a window of the frame."""
    x0, y0, x1, y1 = np.asarray(window, np.float64)
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    corners = resample.transform_points(matrix, corners)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _as_box(values: np.ndarray) -> Box:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1
