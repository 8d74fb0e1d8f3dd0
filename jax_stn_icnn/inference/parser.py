"""A photo in, a parse out; or many.

    photo -> faces -> frames of one size -> networks -> class scores -> the photo's own pixels

The networks see every face at the size of their frame, so one compilation serves photos of all
sizes. The photo itself never goes to the device.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jax_stn_icnn.compilation.cache import cached_program, shapes_and_types
from jax_stn_icnn.compilation.inlining import prevent_inlining
from jax_stn_icnn.compilation.memory import compile_program
from jax_stn_icnn.data.views import to_float
from jax_stn_icnn.faces import detectors, framing, resample
from jax_stn_icnn.faces.detectors import Detector
from jax_stn_icnn.geometry import windows_from_theta
from jax_stn_icnn.inference.results import FaceResult, PhotoResult, merged
from jax_stn_icnn.inference.stream import Prepared, Steps, run
from jax_stn_icnn.io import weights
from jax_stn_icnn.models.pipeline import STNiCNN, variable_shapes
from jax_stn_icnn.ops import resize_bilinear
from jax_stn_icnn.photos.reading import to_rgb

# How many faces of several photos go through the networks at once.
BATCH_SIZE = 4

Photo = str | Path | Image.Image
Photos = list[Any] | tuple[Any, ...]


class _Request(NamedTuple):
    """A photo to be parsed; what messages call it, and where its faces are."""

    image: Any
    name: str
    boxes: Any = None
    landmarks: Any = None
    detect: bool = True


class FaceParser:
    """Parses the faces in photos; `FaceParser.load()` makes one."""

    def __init__(
        self,
        variables: Mapping[str, Any],
        model: STNiCNN,
        frame_size: int,
        detector: str | Path | Detector = "yunet",
    ):
        """Makes a parser of a model's variables.

        Args:
            variables: `{"params": ..., "batch_stats": ...}` of the model.
            model: the networks.
            frame_size: side of the frame that they were trained at, in pixels.
            detector: what finds the faces, as in `load`.

        Raises:
            FileNotFoundError: there is no such file of a detector.
            ValueError: the variables are another model's, a size is impossible, or there is no such
                detector.
        """
        for size in model.patch_sizes:
            if min(size) < 3 or any(n % 2 == 0 for n in size) or max(size) > frame_size:
                raise ValueError(
                    f"patches of {size[0]} x {size[1]} in a frame of {frame_size} pixels: they "
                    "must be odd, at least 3, and no larger than the frame"
                )
        self.model = model
        self.frame_size = frame_size
        self._detector = detectors.make_detector(detector)
        self._detecting = threading.Lock()  # Detectors serve one thread at a time.
        expected = weights.shapes(variable_shapes(model))
        weights.check_entries("the tree of variables", weights.shapes(variables), expected)
        self._variables = jax.device_put(dict(variables))
        self._networks: dict[int, Callable[..., Any]] = {}  # by the size of the batch

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their ids; 0 is background."""
        return self.model.anatomy.classes

    @classmethod
    def load(
        cls, source: str | Path | None = None, *, detector: str | Path | Detector = "yunet"
    ) -> "FaceParser":
        """Makes a parser of weights in a file.

        Args:
            source: what comes with the package, `"nineteen"`, the whole face, or `"nine"`, the
                paper's brows, eyes, nose and lips; or a `.safetensors` file; or the directory of a
                run of `train.py`. By default `"nineteen"`.
            detector: what finds the faces: `"yunet"`; `"cascade"`, OpenCV's Haar cascade; an
                `.onnx` file of YuNet; or a callable that takes a photo, uint8 (H, W, 3), and
                returns `boxes` or `landmarks` as a call of the parser takes them.

        Returns:
            The parser.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no file of weights, or does not say all that is needed; or there is no
                such detector.
        """
        loaded = weights.load_weights(weights.weights_file(source))
        return cls(loaded.variables, loaded.model, loaded.frame_size, detector)

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
        """Parses the faces in a photo, or in several.

        By default the parser's detector finds them. A face with landmarks, as YuNet gives them, is
        turned upright before it is parsed; boxes are of upright faces.

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
            ValueError: a photo cannot be read (`jax_stn_icnn.photos.reading.PhotoError`), or an
                argument, or what the detector returns, does not fit.
        """
        if sum([boxes is not None, landmarks is not None, not detect]) > 1:
            raise ValueError("boxes, landmarks and detect=False exclude each other: give one")
        if not _is_several(image):
            request = _Request(image, "image", boxes, landmarks, detect)
            (parse,) = self._results([request], batch_size=1)
            return _or_raise(parse)
        count = len(image)
        requests = [
            _Request(one, f"image {i}", own_boxes, own_landmarks, detect)
            for i, (one, own_boxes, own_landmarks) in enumerate(
                zip(
                    image,
                    _for_each("boxes", boxes, count),
                    _for_each("landmarks", landmarks, count),
                    strict=True,
                )
            )
        ]
        return [_or_raise(parse) for parse in self._results(requests, BATCH_SIZE)]

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
        """Parses photos one after another, however many, in bounded memory.

        Reading, detecting, the networks and what comes after them overlap, and faces of several
        photos go through the networks together. Photos are asked for as results are taken.

        Args:
            photos: each as in a call of the parser.
            detect: likewise.
            batch_size: how many faces go through the networks at once; accelerators like more.
            errors: "raise" ends the stream with the first photo that cannot be read; "yield" gives
                its error in place of its parse, and goes on.

        Yields:
            The parses, in the order of the photos.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a photo cannot be read, or an argument does not fit.
        """
        if isinstance(photos, Photo):
            raise ValueError(f"photos is one photo, {photos!r}, but must be photos: [{photos!r}]")
        is_count = isinstance(batch_size, int | np.integer) and batch_size >= 1
        if not is_count or errors not in ("raise", "yield"):
            raise ValueError(
                f"batch_size is {batch_size} and errors is {errors!r}, but they must be a whole "
                "number of at least 1, and raise or yield"
            )
        requests = (_Request(photo, f"photo {i}", detect=detect) for i, photo in enumerate(photos))
        results = self._results(requests, batch_size)
        return results if errors == "yield" else map(_or_raise, results)

    def _results(self, requests: Iterable[_Request], batch_size: int) -> Iterator[Any]:
        steps = Steps(
            self._prepare,
            lambda frames: self._program(frames)(self._variables, frames),
            self._finish_face,
            self._finish,
        )
        return run(requests, steps, batch_size)

    def _prepare(self, request: _Request) -> Prepared:
        image = to_rgb(request.image, request.name)
        try:
            found, matrices = self._places(request, image)
        except ValueError as error:
            path = isinstance(request.image, str | Path)
            raise ValueError(f"{request.image if path else request.name}: {error}") from error
        size = (self.frame_size, self.frame_size)
        frames = [resample.pull(image, matrix, size) for matrix in matrices]
        return Prepared(image, found, matrices, frames)

    def _places(
        self, request: _Request, image: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Where the faces are: boxes, and matrices frame -> photo."""
        size, side = image.shape[:2], self.frame_size
        if not request.detect:
            matrix = framing.frame_around_photo(size, side)
            return [framing.box_in_frame(matrix, side)], [matrix]
        if request.boxes is not None:
            return framing.of_boxes(request.boxes, size, side)
        if request.landmarks is not None:
            return framing.of_landmarks(request.landmarks, side)
        with self._detecting:
            seen = self._detector(image)
        return framing.of_detector(seen, size, side)

    def _program(self, frames: np.ndarray) -> Callable[..., Any]:
        """The networks, compiled for a batch of this size."""
        if len(frames) not in self._networks:
            self._networks[len(frames)] = cached_program(
                "parse of a batch",
                (self.model, shapes_and_types((self._variables, frames))),
                lambda: prevent_inlining(parse_frames.lower(self.model, self._variables, frames)),
                # Ordered for memory it is as fast, and compiling leaves a gigabyte over.
                partial(compile_program, save_memory=True),
                list(jax.tree.leaves(self._variables)[0].devices()),
            )
        return self._networks[len(frames)]

    def _finish_face(
        self, prepared: Prepared, number: int, seen: Mapping[str, np.ndarray]
    ) -> FaceResult:
        return FaceResult.of_frame(
            **seen,
            anatomy=self.model.anatomy,
            box=prepared.boxes[number],
            matrix=prepared.matrices[number],
            photo_size=prepared.image.shape[:2],
        )

    def _finish(self, prepared: Prepared, parsed: list[FaceResult]) -> PhotoResult:
        label_map = merged(parsed, prepared.image.shape[:2])
        return PhotoResult(prepared.image, label_map, parsed, self.model.anatomy)


@partial(jax.jit, static_argnames="model")
def parse_frames(
    model: STNiCNN, variables: Mapping[str, Any], frames: jax.Array
) -> dict[str, jax.Array]:
    """What the networks say of frames, as far as a parse of a photo keeps it.

    Args:
        model: the parser.
        variables: its parameters and statistics.
        frames: uint8 (batch, S, S, 3).

    Returns:
        `scores` of the classes, (batch, classes, S, S); `rough`, the rough mask's class ids, uint8
        (batch, rows, columns); `windows` in pixels of the frame, (batch, parts, 4).
    """
    batch = to_float(frames)
    parse: Any = model.apply(variables, resize_bilinear(batch, model.coarse_image_size), batch)
    return {
        "scores": jnp.moveaxis(parse.scores, -1, 1),
        "rough": jnp.argmax(parse.mask, axis=-1).astype(jnp.uint8),
        "windows": windows_from_theta(parse.theta, frames.shape[1:3]),
    }


def _or_raise(result: Any) -> PhotoResult:
    if isinstance(result, Exception):
        raise result
    return result


def _is_several(image: Any) -> bool:
    return isinstance(image, list | tuple) or getattr(image, "ndim", 0) == 4


def _for_each(name: str, values: Any, count: int) -> Sequence[Any]:
    """One entry for each of several photos."""
    if values is None:
        return [None] * count
    if len(values) != count:
        raise ValueError(f"{name} are for {len(values)} photos, but there are {count}")
    return list(values)
