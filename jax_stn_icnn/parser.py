"""A photo in, a parse out.

    photo -> faces -> frames of one size -> networks -> class scores -> the photo's own pixels

The networks see every face at the size of their frame, so one compilation serves photos of all
sizes. The photo itself never goes to the device.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jax_stn_icnn import draw, faces, labels, resample, weights
from jax_stn_icnn.geometry import COARSE_SIZE, windows_from_theta
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.photos import to_rgb
from jax_stn_icnn.sampling import resize_bilinear
from jax_stn_icnn.views import to_float

PRETRAINED = Path(__file__).parent / "pretrained" / weights.WEIGHTS

Photo = str | Path | Image.Image
Photos = list[Any] | tuple[Any, ...]
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class FaceParse:
    """One face of a photo.

    Boxes are (x0, y0, x1, y1), the centres of their corner pixels, in pixels of the photo, and may
    reach beyond its edges.

    Attributes:
        box: the face from forehead to chin: as found or given, or, where landmarks were given or
            the whole photo was taken, where the detector's box would be.
        windows: part name -> box of the window that was cut for it; where the face is turned, the
            box around that window.
        found: the names of the parts of which there is at least a pixel.
        rough: class ids of the rough mask, which covers the frame, uint8 (128, 128).
        matrix: pixels of the frame, which the networks saw -> pixels of the photo, (2, 3).
        photo_size: (height, width) of the photo.
    """

    box: Box
    windows: dict[str, Box]
    found: tuple[str, ...]
    rough: np.ndarray
    matrix: np.ndarray
    photo_size: tuple[int, int]
    _frame_scores: np.ndarray = dataclasses.field(repr=False)  # (9, S, S)
    _within: tuple[slice, slice] = dataclasses.field(repr=False)  # rows and columns of the photo
    _labels: np.ndarray = dataclasses.field(repr=False)  # in these rows and columns

    @property
    def labels(self) -> np.ndarray:
        """Class ids of this face alone, uint8 of the photo's (height, width)."""
        label_map = np.zeros(self.photo_size, np.uint8)
        label_map[self._within] = self._labels
        return label_map

    def scores(self) -> np.ndarray:
        """The nine classes' scores, float32 (height, width, 9); outside the frame, background."""
        scores = np.zeros((*self.photo_size, labels.NUM_CLASSES), np.float32)
        scores[..., 0] = 1
        for c in range(labels.NUM_CLASSES):
            scores[(*self._within, c)] = _carry(self._frame_scores, c, self.matrix, self._within)
        return scores


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoParse:
    """A photo's parse.

    Attributes:
        image: the photo as RGB, uint8 (height, width, 3).
        labels: class ids, uint8 (height, width); where faces overlap, the larger is in front.
        faces: the faces in it, in the order found or given.
    """

    image: np.ndarray = dataclasses.field(repr=False)
    labels: np.ndarray = dataclasses.field(repr=False)
    faces: list[FaceParse]

    def overlay(self, alpha: float = 0.6) -> np.ndarray:
        """The photo with the classes' colours (`labels.PALETTE`) over it.

        Args:
            alpha: 0 shows the photo only, 1 the colours only.

        Returns:
            RGB, uint8 (height, width, 3).
        """
        return draw.overlay(self.image, self.labels, alpha)


class FaceParser:
    """Parses the faces in photos; `FaceParser.load()` makes one."""

    def __init__(self, variables: Mapping[str, Any], cropper: str, sides: weights.Sides):
        """Makes a parser of a model's variables.

        Args:
            variables: `{"params": ..., "batch_stats": ...}` of an `STNiCNN`.
            cropper: the model's `cropper`.
            sides: the sides of its patches and of its frame.

        Raises:
            ValueError: the variables are another model's, or a side is impossible.
        """
        if sides.patch < 3 or sides.patch % 2 == 0 or sides.frame < sides.patch:
            raise ValueError(
                f"{sides} must hold an odd patch of at least 3 and a frame no smaller than it"
            )
        self.sides = sides
        self.model = STNiCNN((sides.patch, sides.patch), cropper)
        inputs = jnp.zeros((1, *COARSE_SIZE, 3)), jnp.zeros((1, sides.frame, sides.frame, 3))
        expected = jax.eval_shape(self.model.init, jax.random.key(0), *inputs)
        weights.check_entries(
            "the tree of variables", weights.shapes(variables), weights.shapes(expected)
        )
        self._variables = jax.device_put(dict(variables))

    @classmethod
    def load(cls, path: str | Path | None = None) -> "FaceParser":
        """Makes a parser of weights in a file.

        Args:
            path: a `.safetensors` file, or the directory of a run of `train.py`; by default the
                weights that come with the package.

        Returns:
            The parser.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no file of weights, or does not say all that is needed.
        """
        if path is None and not PRETRAINED.exists():
            raise FileNotFoundError(
                f"this installation comes without weights ({PRETRAINED}): name a file of weights "
                "or the directory of a run"
            )
        source = PRETRAINED if path is None else Path(path).expanduser()
        file = source / weights.WEIGHTS if source.is_dir() else source
        if not file.exists():
            raise FileNotFoundError(f"there is no file of weights {file}")
        variables, cropper = weights.load_weights(file)
        sides = _run_sides(source) if source.is_dir() else weights.load_sides(file)
        try:
            return cls(variables, cropper, sides)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @overload
    def __call__(
        self, image: Photo, *, boxes: Any = ..., landmarks: Any = ..., detect: bool = ...
    ) -> PhotoParse: ...
    @overload
    def __call__(
        self, image: Photos, *, boxes: Any = ..., landmarks: Any = ..., detect: bool = ...
    ) -> list[PhotoParse]: ...
    @overload
    def __call__(
        self, image: Any, *, boxes: Any = ..., landmarks: Any = ..., detect: bool = ...
    ) -> Any: ...

    def __call__(
        self, image: Any, *, boxes: Any = None, landmarks: Any = None, detect: bool = True
    ) -> PhotoParse | list[PhotoParse]:
        """Parses the faces in a photo, or in several.

        By default OpenCV's Haar cascade looks for upright frontal faces. Other detectors find more:
        give what they say as `boxes` or, better, as `landmarks`.

        Args:
            image: a path; a Pillow image; an array (H, W), (H, W, 3) or (H, W, 4), uint8 or floats
                in 0..1; a list of these, or an array (N, H, W, 3 or 4).
            boxes: where the faces are, (faces, 4): (x0, y0, x1, y1) in pixels, each from forehead
                to chin and about square. For several photos, a sequence of these.
            landmarks: likewise the middles of eye 1 and eye 2, the tip of the nose, and the corners
                1 and 2 of the mouth, each (x, y), (faces, 5, 2); 1 is on the viewer's left.
            detect: False takes the whole photo as one face, framed as in CelebAMask-HQ; one that is
                not square is padded with black.

        Returns:
            The parse, or a list of them for several photos. A photo without faces has a parse all
            background.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a photo cannot be read (`photos.PhotoError`), or an argument does not fit.
            ImportError: faces are to be found, but the installed OpenCV cannot.
        """
        if sum([boxes is not None, landmarks is not None, not detect]) > 1:
            raise ValueError("boxes, landmarks and detect=False exclude each other: give one")
        if not _is_several(image):
            return self._parse(to_rgb(image), boxes, landmarks, detect)
        count = len(image)
        return [
            self._parse(to_rgb(one, f"image {i}"), own_boxes, own_landmarks, detect)
            for i, (one, own_boxes, own_landmarks) in enumerate(
                zip(
                    image,
                    _for_each("boxes", boxes, count),
                    _for_each("landmarks", landmarks, count),
                    strict=True,
                )
            )
        ]

    def _parse(self, image: np.ndarray, boxes: Any, landmarks: Any, detect: bool) -> PhotoParse:
        size, side = image.shape[:2], self.sides.frame
        if landmarks is not None:
            points = faces.check_landmarks(landmarks)
            matrices = [faces.frame_around_landmarks(face, side) for face in points]
            found = [faces.box_in_frame(matrix, side) for matrix in matrices]
        elif not detect:
            matrices = [faces.frame_around_photo(size, side)]
            found = [faces.box_in_frame(matrices[0], side)]
        else:
            found = list(faces.detect(image) if boxes is None else faces.check_boxes(boxes, size))
            matrices = [faces.frame_around_box(box, side) for box in found]
        parsed = [
            self._parse_face(image, box, matrix)
            for box, matrix in zip(found, matrices, strict=True)
        ]
        label_map = np.zeros(size, np.uint8)
        for face in sorted(parsed, key=lambda face: abs(np.linalg.det(face.matrix[:, :2]))):
            part = face._labels > 0
            label_map[face._within][part] = face._labels[part]
        return PhotoParse(image, label_map, parsed)

    def _parse_face(self, image: np.ndarray, box: np.ndarray, matrix: np.ndarray) -> FaceParse:
        size = (self.sides.frame, self.sides.frame)
        frame = resample.pull(image, matrix, size)
        seen = jax.device_get(_networks(self.model, self._variables, frame))
        within = resample.footprint(matrix, size, image.shape[:2])
        label_map = _argmax(seen["scores"], matrix, within)
        present = np.bincount(label_map.ravel(), minlength=labels.NUM_CLASSES) > 0
        return FaceParse(
            box=_as_box(box),
            windows={
                part.name: _as_box(_box_around(window, matrix))
                for part, window in zip(labels.PARTS, seen["windows"], strict=True)
            },
            found=tuple(p.name for p in labels.PARTS if present[list(p.classes)].any()),
            rough=seen["rough"],
            matrix=matrix,
            photo_size=(image.shape[0], image.shape[1]),
            _frame_scores=seen["scores"],
            _within=within,
            _labels=label_map,
        )


@partial(jax.jit, static_argnames="model")
def _networks(model: STNiCNN, variables: Mapping[str, Any], frame: jax.Array) -> dict[str, Any]:
    """What is kept of a frame's parse, in pixels of the frame, uint8 (S, S, 3)."""
    batch = to_float(frame)[None]
    parse: Any = model.apply(variables, resize_bilinear(batch, COARSE_SIZE), batch)
    return {
        "scores": jnp.moveaxis(parse.scores[0], -1, 0),
        "rough": jnp.argmax(parse.mask[0], axis=-1).astype(jnp.uint8),
        "windows": windows_from_theta(parse.theta[0], frame.shape[:2]),
    }


def _argmax(
    frame_scores: np.ndarray, matrix: np.ndarray, within: tuple[slice, slice]
) -> np.ndarray:
    """Class ids in rows and columns of the photo; one class at a time, for photos are large."""
    best = _carry(frame_scores, 0, matrix, within)
    label_map = np.zeros(best.shape, np.uint8)
    for c in range(1, labels.NUM_CLASSES):
        scores = _carry(frame_scores, c, matrix, within)
        better = scores > best
        label_map[better] = c
        np.copyto(best, scores, where=better)
    return label_map


def _carry(
    frame_scores: np.ndarray, c: int, matrix: np.ndarray, within: tuple[slice, slice]
) -> np.ndarray:
    """A class's scores in rows and columns of the photo, float32; background outside the frame."""
    rows, columns = within
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


def _is_several(image: Any) -> bool:
    return isinstance(image, list | tuple) or getattr(image, "ndim", 0) == 4


def _for_each(name: str, values: Any, count: int) -> Sequence[Any]:
    """One entry for each of several photos."""
    if values is None:
        return [None] * count
    if len(values) != count:
        raise ValueError(f"{name} are for {len(values)} photos, but there are {count}")
    return list(values)


def _run_sides(directory: Path) -> weights.Sides:
    """The sides that a run's config holds."""
    path = directory / weights.CONFIG
    try:
        config = json.loads(path.read_text())
        return weights.Sides(
            int(config["model"]["patch_size"]), int(config["dataset"]["frame_size"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must be a run's config, with model.patch_size and dataset.frame_size"
        ) from error
