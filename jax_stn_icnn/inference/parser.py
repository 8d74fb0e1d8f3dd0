"""Parses the faces in photos: `FaceParser`.

    read, detect, crop frames   threads     each photo -> its faces as frames of one size
    networks                    device      batches of frames of several photos -> class scores
    resample, merge             threads     class scores -> labels of the photo's pixels

`FaceParser._parse` connects these steps. Frames have the same size for all photos, so one compiled
program serves them all; only frames are sent to the device.
"""

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jax_stn_icnn.compilation.cache import cached_program, shapes_and_types
from jax_stn_icnn.compilation.compile import compile_program
from jax_stn_icnn.compilation.inlining import prevent_inlining
from jax_stn_icnn.faces import detectors, framing, resample
from jax_stn_icnn.faces.detectors import Detector
from jax_stn_icnn.geometry import windows_from_theta
from jax_stn_icnn.inference.extension import Extension
from jax_stn_icnn.inference.merging import merge_faces
from jax_stn_icnn.inference.results import FaceResult, PhotoResult
from jax_stn_icnn.inference.threads import background_threads, run_ahead
from jax_stn_icnn.inference.turning import RotationCheck
from jax_stn_icnn.io import weights
from jax_stn_icnn.models.pipeline import STNiCNN, variable_shapes
from jax_stn_icnn.ops.platform import current_implementations
from jax_stn_icnn.photos.reading import to_rgb

BATCH_SIZE = 4  # faces per call of the networks, where several photos are parsed
THREADS = 2  # number of threads that read photos, and of threads that resample labels
# Another photo is read only while the photos whose results have not been taken have fewer than
# MAX_PIXELS pixels and fewer than MAX_FACES faces, or than the faces of two batches. A photo
# without faces counts as one face. The scores of a face take 23 MB.
MAX_PIXELS = 32_000_000
MAX_FACES = 32
MAX_BATCHES = 2  # on the device: one that runs, and one that waits

Photo = str | Path | Image.Image
Photos = list[Any] | tuple[Any, ...]
Program = Callable[..., dict[str, jax.Array]]


@dataclasses.dataclass
class _Face:
    """A face of a photo that has been read."""

    box: np.ndarray
    matrix: np.ndarray  # pixels of the frame -> pixels of the photo
    frames: tuple[np.ndarray, ...]  # the frame, uint8 (S, S, 3); possibly the wide frame
    photo: np.ndarray  # uint8 (height, width, 3)
    result: Future[FaceResult] | None = None  # None until its batch is on the device


@dataclasses.dataclass
class _Photo:
    """A photo that has been read, or the error of reading it."""

    image: np.ndarray  # uint8 (height, width, 3)
    faces: list[_Face]
    error: OSError | ValueError | None = None


class FaceParser:
    """Parses the faces in photos; `FaceParser.load()` creates one."""

    def __init__(
        self,
        variables: Mapping[str, Any],
        model: STNiCNN,
        frame_size: int,
        detector: str | Path | Detector = "yunet",
        *,
        wide: bool = True,
        min_face_size: float | None = None,
        exact_scores: bool = False,
    ):
        """Creates a parser from a model and its variables.

        Args:
            variables: `{"params": ..., "batch_stats": ...}` of the model.
            model: the networks.
            frame_size: side of the frames that the model was trained on, in pixels.
            detector: face detector, as in `load`.
            wide: as in `load`.
            min_face_size: side of the smallest faces that are searched for, as in `load`.
            exact_scores: as in `load`.

        Raises:
            FileNotFoundError: the file of the detector does not exist.
            ValueError: the variables do not fit the model, a window is larger than the frame, the
                detector is unknown, or `min_face_size` is invalid.
        """
        largest = max(max(size) for size in model.config.patch_sizes)
        if largest > frame_size:
            raise ValueError(
                f"frame_size is {frame_size}, but must be at least {largest}, the side of the "
                "largest window"
            )
        expected = weights.shapes(variable_shapes(model))
        weights.check_entries("the tree of variables", weights.shapes(variables), expected)
        self.model = model
        self.frame_size = frame_size
        self.wide = wide and model.config.wide
        self.exact_scores = exact_scores
        self.detector = detectors.make_detector(detector, min_face_size)
        self._detector_lock = threading.Lock()  # Detectors serve one thread at a time.
        self._variables = jax.device_put(dict(variables))
        self._extension = Extension(model, self._variables)
        self._rotation_check = RotationCheck(model, self._variables, frame_size)
        self._programs: dict[int, Program] = {}  # by batch size

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by id; class 0 is background."""
        return self.model.config.anatomy.classes

    @property
    def variables(self) -> Mapping[str, Any]:
        """The variables of the model, on the device."""
        return self._variables

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        *,
        detector: str | Path | Detector = "yunet",
        wide: bool = True,
        min_face_size: float | None = None,
        exact_scores: bool = False,
    ) -> "FaceParser":
        """Creates a parser from a file of weights.

        Args:
            source: shipped weights, `"nineteen"`, the full face, or `"nine"`, the paper's brows,
                eyes, nose and lips; or a `.safetensors` file; or the directory of a run of
                `train.py`. By default `"nineteen"`.
            detector: face detector: `"yunet"`; `"cascade"`, OpenCV's Haar cascade; an `.onnx` file
                of YuNet; or a callable that takes a photo, uint8 (H, W, 3), and returns `boxes` or
                `landmarks` as in `__call__`.
            wide: whether to parse hair, neck, shoulders and clothes outside of the square around
                each face, too, if the weights are trained for it, as `"nineteen"` is.
            min_face_size: side of the smallest faces that YuNet searches for, from forehead to
                chin, in pixels of the photo; by default 40, about 2 times the distance of the eyes.
                The time for large photos is proportional to its inverse square.
            exact_scores: whether results store scores exactly, 23 MB per face; by default they are
                rounded to multiples of 1/255 and take 0.2 to 0.6 MB. Labels are the same.

        Returns:
            The parser.

        Raises:
            FileNotFoundError: a file does not exist.
            ValueError: the file is not a file of weights or lacks an entry, the detector is
                unknown, or `min_face_size` is not positive or given for another detector.
        """
        loaded = weights.load_weights(weights.weights_file(source))
        return cls(
            loaded.variables,
            loaded.model,
            loaded.frame_size,
            detector,
            wide=wide,
            min_face_size=min_face_size,
            exact_scores=exact_scores,
        )

    @overload
    def __call__(
        self, image: Photo, *, boxes: Any = ..., landmarks: Any = ..., detect: bool = ...
    ) -> PhotoResult: ...
    @overload
    def __call__(
        self, image: Photos, *, boxes: Any = ..., landmarks: Any = ..., detect: bool = ...
    ) -> list[PhotoResult]: ...
    @overload
    def __call__(
        self, image: Any, *, boxes: Any = ..., landmarks: Any = ..., detect: bool = ...
    ) -> Any: ...

    def __call__(
        self, image: Any, *, boxes: Any = None, landmarks: Any = None, detect: bool = True
    ) -> PhotoResult | list[PhotoResult]:
        """Parses the faces in one or several photos.

        By default the detector locates the faces. A face with landmarks, such as YuNet's, is
        rotated upright before it is parsed; boxes are of upright faces.

        Args:
            image: a path; a Pillow image; an array (H, W), (H, W, 3) or (H, W, 4), uint8 or floats
                in 0..1; a list of these, or an array (N, H, W, 3 or 4).
            boxes: boxes of the faces, (faces, 4): (x0, y0, x1, y1) in pixels, each from forehead
                to chin and about square. For several photos, a sequence of these.
            landmarks: landmarks of the faces, (faces, 5, 2): (x, y) of the centers of eye 1 and eye
                2, the tip of the nose, and the corners 1 and 2 of the mouth; 1 is on the viewer's
                left. For several photos, a sequence of these.
            detect: False parses the full photo as one face, framed as in CelebAMask-HQ; a photo
                that is not square is padded with black.

        Returns:
            The result, or a list of results for several photos. All labels of a photo without faces
            are background.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a photo cannot be read (`jax_stn_icnn.photos.reading.PhotoError`), or an
                argument or the output of the detector is invalid.
        """
        if sum([boxes is not None, landmarks is not None, not detect]) > 1:
            raise ValueError("boxes, landmarks and detect=False exclude each other: give one")
        if not isinstance(image, list | tuple) and getattr(image, "ndim", 0) != 4:
            read = partial(self._read, image, "image", boxes, landmarks, detect)
            (result,) = self._parse([read], batch_size=1)
            return result
        all_boxes = _one_per_photo("boxes", boxes, len(image))
        all_landmarks = _one_per_photo("landmarks", landmarks, len(image))
        reads = [
            partial(self._read, photo, f"image {i}", all_boxes[i], all_landmarks[i], detect)
            for i, photo in enumerate(image)
        ]
        return list(self._parse(reads, BATCH_SIZE))

    @overload
    def stream(
        self,
        photos: Iterable[Any],
        *,
        detect: bool = ...,
        batch_size: int = ...,
        errors: Literal["raise"] = ...,
    ) -> Iterator[PhotoResult]: ...
    @overload
    def stream(
        self, photos: Iterable[Any], *, detect: bool = ..., batch_size: int = ..., errors: str
    ) -> Iterator[PhotoResult | OSError | ValueError]: ...

    def stream(
        self,
        photos: Iterable[Any],
        *,
        detect: bool = True,
        batch_size: int = BATCH_SIZE,
        errors: str = "raise",
    ) -> Iterator[PhotoResult | OSError | ValueError]:
        """Parses any number of photos in bounded memory.

        Reading, detection, the networks and resampling overlap, and a batch contains faces of
        several photos. Photos are requested only as results are taken.

        Args:
            photos: photos as in `__call__`.
            detect: as in `__call__`.
            batch_size: faces per call of the networks; accelerators benefit from larger batches.
            errors: "raise" ends the stream with the error of the first photo that cannot be read;
                "yield" yields the error in place of the result, and continues.

        Yields:
            The results, in the order of the photos.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a photo cannot be read, or an argument is invalid.
        """
        if isinstance(photos, Photo):
            raise ValueError(f"photos is one photo, {photos!r}, but must be photos: [{photos!r}]")
        is_count = isinstance(batch_size, int | np.integer) and batch_size >= 1
        if not is_count or errors not in ("raise", "yield"):
            raise ValueError(
                f"batch_size is {batch_size} and errors is {errors!r}, but they must be an integer "
                "of at least 1, and raise or yield"
            )
        reads = (
            partial(self._read, photo, f"photo {i}", None, None, detect)
            for i, photo in enumerate(photos)
        )
        return self._parse(reads, batch_size, errors)

    def _parse(
        self, reads: Iterable[Callable[[], _Photo]], batch_size: int, errors: str = "raise"
    ) -> Iterator[Any]:
        """Yields the results of photos in order.

        Args:
            reads: calls of `_read`, requested only as results are taken.
            batch_size: as in `stream`.
            errors: as in `stream`.
        """
        photos: deque[_Photo] = deque()  # read, but their results have not been taken
        batch: list[_Face] = []  # faces of these photos for the next call of the networks
        on_device: deque[Any] = deque()  # outputs of the last calls

        with background_threads(THREADS) as readers, background_threads(THREADS) as finishers:

            def run_networks() -> None:
                if len(on_device) == MAX_BATCHES:
                    jax.block_until_ready(on_device.popleft())
                frames = [np.zeros(shape, np.uint8) for shape in self._frame_shapes(batch_size)]
                for row, face in enumerate(batch):
                    for array, frame in zip(frames, face.frames, strict=True):
                        array[row] = frame
                on_device.append(self._program(batch_size)(self._variables, *frames))
                fetched = finishers.submit(jax.device_get, on_device[-1])
                for row, face in enumerate(batch):
                    face.result = finishers.submit(self._finish_face, face, fetched, row)
                batch.clear()

            for photo in run_ahead(readers, reads, ahead=THREADS):
                photos.append(photo)
                for face in photo.faces:
                    batch.append(face)
                    if len(batch) == batch_size:
                        run_networks()
                while photos and (_is_done(photos[0]) or not _has_room(photos, batch_size)):
                    if any(face.result is None for face in photos[0].faces):
                        run_networks()  # No other photo may be read to fill the batch.
                    yield self._finish_photo(photos.popleft(), errors)
            if batch:
                run_networks()
            while photos:
                yield self._finish_photo(photos.popleft(), errors)

    def _read(self, photo: Any, name: str, boxes: Any, landmarks: Any, detect: bool) -> _Photo:
        """Reads a photo, locates its faces, and crops the frame of each."""
        try:
            image = to_rgb(photo, name)
            try:
                face_boxes, matrices = self._locate_faces(image, boxes, landmarks, detect)
            except ValueError as error:
                is_path = isinstance(photo, str | Path)
                raise ValueError(f"{photo if is_path else name}: {error}") from error
        except (OSError, ValueError) as error:
            return _Photo(np.empty((0, 0, 3), np.uint8), [], error)
        faces = [
            _Face(box, matrix, self._crop_frames(image, matrix), image)
            for box, matrix in zip(face_boxes, matrices, strict=True)
        ]
        return _Photo(image, faces)

    def _crop_frames(self, image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns a face's frame, and its wide frame at the size of the coarse image."""
        frame = resample.warp(image, matrix, (self.frame_size,) * 2)
        if not self.wide:
            return (frame,)
        size = self.model.config.coarse_image_size
        wide_matrix = framing.wide_frame(matrix, self.frame_size, size[0])
        return frame, resample.warp(image, wide_matrix, size)

    def _frame_shapes(self, batch_size: int) -> list[tuple[int, ...]]:
        """Returns the shapes of batches of frames, and of wide frames if the parser has them."""
        sizes = [(self.frame_size,) * 2]
        if self.wide:
            sizes.append(self.model.config.coarse_image_size)
        return [(batch_size, *size, 3) for size in sizes]

    def _locate_faces(
        self, image: np.ndarray, boxes: Any, landmarks: Any, detect: bool
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns the box and the matrix frame -> photo of each face."""
        (height, width), side = image.shape[:2], self.frame_size
        if not detect:
            matrix = framing.frame_from_photo((height, width), side)
            return [framing.box_from_frame(matrix, side)], [matrix]
        if boxes is not None:
            return framing.frames_from_boxes(boxes, (height, width), side)
        if landmarks is not None:
            return framing.frames_from_landmarks(landmarks, side)
        with self._detector_lock:
            detections = self._rotation_check.detect(self.detector, image)
        return framing.frames_from_detections(detections, (height, width), side)

    def _program(self, batch_size: int) -> Program:
        if batch_size not in self._programs:
            shapes = self._frame_shapes(batch_size)
            self._programs[batch_size] = compile_networks(self.model, self._variables, *shapes)
        return self._programs[batch_size]

    def _finish_face(
        self, face: _Face, fetched: Future[dict[str, np.ndarray]], row: int
    ) -> FaceResult:
        """Resamples the outputs for a face, a row of its batch, to the photo."""
        # Copied from larger batches, so that a result does not keep other faces' outputs in memory.
        outputs = {
            name: values[row].copy() if len(values) > 1 else values[0]
            for name, values in fetched.result().items()
        }
        wide_scores: tuple[np.ndarray, ...] = ()
        if self.wide:
            size = self.model.config.coarse_image_size[0]
            wide_matrix = framing.wide_frame(face.matrix, self.frame_size, size)
            wide_scores = self._extension(face.photo, wide_matrix, outputs.pop("wide_scores"))
        return FaceResult.from_frame(
            **outputs,
            wide_scores=wide_scores,
            anatomy=self.model.config.anatomy,
            box=face.box,
            matrix=face.matrix,
            photo_size=face.photo.shape[:2],
            exact_scores=self.exact_scores,
        )

    def _finish_photo(self, photo: _Photo, errors: str) -> PhotoResult | OSError | ValueError:
        """Waits for the faces of a photo and merges their labels."""
        if photo.error is not None:
            if errors == "raise":
                raise photo.error
            return photo.error
        faces = [face.result.result() for face in photo.faces if face.result is not None]
        pixels, faces = merge_faces(faces, photo.image)
        return PhotoResult(photo.image, faces, self.model.config.anatomy, pixels)


def compile_networks(
    model: STNiCNN, variables: Mapping[str, Any], *shapes: tuple[int, ...]
) -> Program:
    """Returns `parse_frames` compiled for frames of a shape, from the cache on disk if possible.

    Args:
        model: the networks.
        variables: the variables of the model, on the device.
        *shapes: shape of the frames, (batch, S, S, 3), and of the wide frames if they are parsed.

    Returns:
        A function of variables and frames, and of wide frames.
    """
    frames = [jax.ShapeDtypeStruct(shape, np.uint8) for shape in shapes]
    return cached_program(
        "parse of a batch",
        (model, current_implementations(), shapes_and_types((variables, frames))),
        lambda: prevent_inlining(parse_frames.lower(model, variables, *frames)),
        # Scheduled for memory, the program is as fast, and compiling it takes a gigabyte less.
        partial(compile_program, save_memory=True),
        list(jax.tree.leaves(variables)[0].devices()),
    )


@partial(jax.jit, static_argnames="model")
def parse_frames(
    model: STNiCNN,
    variables: Mapping[str, Any],
    frames: jax.Array,
    wide_frames: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Computes the outputs of the networks that `FaceResult.from_frame` takes.

    Args:
        model: the networks.
        variables: the variables of the model.
        frames: uint8 (batch, S, S, 3).
        wide_frames: uint8 (batch, *coarse_image_size, 3); None to parse the frames alone.

    Returns:
        `scores` of the classes, (batch, classes, S, S); `coarse_labels`, class ids of the coarse
        segmentation, uint8 (batch, rows, columns); `windows` in pixels of the frame, (batch, parts,
        4); with wide frames `wide_scores` of the global classes, (batch, global classes, rows,
        columns).
    """
    output: Any = model.apply(variables, frames, wide_frame=wide_frames)
    outputs = {
        "scores": jnp.moveaxis(output.scores, -1, 1),
        "coarse_labels": jnp.argmax(output.coarse_probs, axis=-1).astype(jnp.uint8),
        "windows": windows_from_theta(output.theta, frames.shape[1:3]),
    }
    if output.wide_probs is not None:
        outputs["wide_scores"] = output.wide_probs
    return outputs


def _is_done(photo: _Photo) -> bool:
    return all(face.result is not None and face.result.done() for face in photo.faces)


def _has_room(photos: Iterable[_Photo], batch_size: int) -> bool:
    """Whether another photo may be read."""
    num_faces = sum(max(len(photo.faces), 1) for photo in photos)
    num_pixels = sum(photo.image[..., 0].size for photo in photos)
    return num_faces < max(MAX_FACES, 2 * batch_size) and num_pixels < MAX_PIXELS


def _one_per_photo(name: str, values: Any, count: int) -> Sequence[Any]:
    """Checks that there is one entry per photo."""
    if values is None:
        return [None] * count
    if len(values) != count:
        raise ValueError(f"{name} are for {len(values)} photos, but there are {count}")
    return list(values)
