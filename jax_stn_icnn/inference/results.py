"""Results of the parser: labels and scores of a photo's pixels, by face and of the photo."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.evaluation import draw
from jax_stn_icnn.faces import framing, resample
from jax_stn_icnn.inference import soft_masks
from jax_stn_icnn.inference.compact import CompactArray
from jax_stn_icnn.inference.masks import Labelled
from jax_stn_icnn.inference.pixels import Layers, Pixels
from jax_stn_icnn.inference.resampling import (
    Area,
    CompactLayer,
    Layer,
    labels_of_layers,
    restore_layers,
    scores_of_layers,
)

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class FaceResult(Labelled):
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
        track: in results of `FaceParser.track`, the number of the person: the same in all pictures
            of the video; None in those of photos.
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
    _pixels: Pixels = dataclasses.field(repr=False)
    _index: int = dataclasses.field(default=0, repr=False)  # among the owners of the pixels
    track: int | None = None

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
        exact_scores: bool = False,
        track: int | None = None,
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
            exact_scores: whether to store the scores as they are; by default they are rounded to
                multiples of 1/255 and compressed. Labels are those of the exact scores.
            track: as in the class.

        Returns:
            The result of the face.
        """
        layers = [Layer(scores, matrix, tuple(range(anatomy.num_classes)))]
        for outer in wide_scores:
            inner = layers[-1]
            outer_matrix = framing.wide_frame(inner.matrix, inner.side, outer.shape[-1])
            layers.append(Layer(outer, outer_matrix, anatomy.global_ids))
        label_map, area = labels_of_layers(layers, photo_size)
        stored = tuple(layers) if exact_scores else tuple(map(CompactLayer.of, layers))
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
            _pixels=Pixels(photo_size, area, CompactArray.of(label_map), (stored,)),
            track=track,
        )

    @property
    def _layers(self) -> Layers:
        return self._pixels.layers[self._index]

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
    def frame_area(self) -> Area:
        """Rows and columns of the photo that contain the frame."""
        return self._layers[0].area(self.photo_size)

    @property
    def labels(self) -> np.ndarray:
        """Class ids of this face's pixels, uint8 (height, width) of the photo.

        Pixels of other faces' classes are background: each pixel belongs to one face, and the
        faces' labels together are those of the photo. Each access decompresses them.
        """
        return self._pixels.labels_of_face(self._index)

    @property
    def pixels(self) -> Pixels:
        """Labels of the photo's pixels, those of other faces included, and their owners."""
        return self._pixels

    def with_pixels(self, pixels: Pixels, index: int) -> "FaceResult":
        """Returns the same face with other labels.

        Args:
            pixels: labels of the photo's pixels, and their owners.
            index: index of the face among the owners.
        """
        return dataclasses.replace(self, _pixels=pixels, _index=index)

    def soft_mask(self, *names: str) -> np.ndarray:
        """Returns the share of one or more classes in the scores at each pixel.

        The pixels of other faces, and the background that is nearer to them, count as background.

        Args:
            *names: as for `mask`.

        Returns:
            float32 (height, width), 0..1, greater than 0.5 exactly where `mask(*names)` is True.

        Raises:
            ValueError: no name is given, or one is unknown.
        """
        return soft_masks.soft_mask(self._pixels, self.anatomy.mask_ids(names), self._index)

    def scores(self) -> np.ndarray:
        """Class scores, float32 (height, width, classes), regardless of other faces.

        They sum to 1 at each pixel. Outside of all frames of the face, the score of background is
        1. Scores of the frames are rounded to multiples of 1/255, so that the largest one may
        belong to another class than `labels` where two are about equal;
        `FaceParser.load(exact_scores=True)` stores them exactly, in 23 MB per face instead of
        0.2 to 0.6 MB.
        """
        return scores_of_layers(restore_layers(self._layers), self.photo_size)


class Crop(NamedTuple):
    """The region of a photo around a face.

    Attributes:
        image: RGB, uint8 (rows, columns, 3).
        mask: bool (rows, columns).
        box: (x0, y0, x1, y1) in the photo, the centers of the region's corner pixels.
    """

    image: np.ndarray
    mask: np.ndarray
    box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoResult(Labelled):
    """The result of parsing a photo.

    Attributes:
        image: the photo as RGB, uint8 (height, width, 3).
        faces: the faces, in the order in which they were detected or given.
        anatomy: the classes and parts.
    """

    image: np.ndarray = dataclasses.field(repr=False)
    faces: list[FaceResult]
    anatomy: Anatomy = dataclasses.field(repr=False)
    _pixels: Pixels = dataclasses.field(repr=False)

    @property
    def labels(self) -> np.ndarray:
        """Class ids of all faces, uint8 (height, width); each access decompresses them."""
        return self._pixels.labels()

    def soft_mask(self, *names: str) -> np.ndarray:
        """Returns the share of one or more classes in the scores at each pixel.

        In a photo of several people, the scores of a pixel are those of the face that its label is
        from.

        Args:
            *names: as for `mask`.

        Returns:
            float32 (height, width), 0..1, greater than 0.5 exactly where `mask(*names)` is True.

        Raises:
            ValueError: no name is given, or one is unknown.
        """
        return soft_masks.soft_mask(self._pixels, self.anatomy.mask_ids(names))

    def cutout(self, *names: str) -> np.ndarray:
        """Returns the photo with transparency around one or more classes.

        Args:
            *names: as for `mask`; by default "person", everything but background.

        Returns:
            RGBA, uint8 (height, width, 4). The opacity increases from 0 where the soft mask is 0.1
            to 255 where it is 0.9, and is greater than 127 exactly where `mask(*names)` is True.
            The colour of transparent pixels is 0.

        Raises:
            ValueError: a name is unknown.
        """
        return soft_masks.cut_out(self.image, self.soft_mask(*(names or ("person",))))

    def crop(self, face: int, *names: str) -> Crop:
        """Returns the region of the photo around a face, and the mask of the face there.

        Args:
            face: index of the face.
            *names: classes of the mask, as for `mask`; by default "person", everything but
                background.

        Returns:
            The bounding box of the frame within the photo, empty if the frame is outside of it.

        Raises:
            IndexError: there is no such face.
            ValueError: a name is unknown.
        """
        rows, columns = self.faces[face].frame_area
        mask = self.faces[face].mask(*(names or ("person",)))
        box = (columns.start, rows.start, columns.stop - 1, rows.stop - 1)
        return Crop(self.image[rows, columns].copy(), mask[rows, columns].copy(), box)

    def overlay(self, alpha: float = 0.6, *, legend: bool = False) -> np.ndarray:
        """Returns the photo blended with the colours of the classes.

        Args:
            alpha: opacity of the colours, 0..1.
            legend: whether to append a legend of the classes in the photo.

        Returns:
            RGB, uint8 (height, width, 3), with more rows for a legend.
        """
        labels = self.labels
        picture = draw.overlay(self.image, labels, self.anatomy, alpha)
        return draw.with_legend(picture, labels, self.anatomy) if legend else picture


def _bounding_box(window: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns the bounding box, in the photo, of a window of the frame."""
    x0, y0, x1, y1 = np.asarray(window, np.float64)
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    corners = resample.transform_points(matrix, corners)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _as_box(values: np.ndarray) -> Box:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1
