"""Parses the faces in photos: `FaceParser`.

    read, detect, crop frames   threads     each photo -> its faces as frames of one size
    networks                    device      batches of frames of several photos -> class scores
    resample, merge             threads     class scores -> labels of the photo's pixels

`Batching` connects these steps. Frames have the same size for all photos, so one compiled
program serves them all; only frames are sent to the device.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import jax
import numpy as np
from PIL import Image

from jax_stn_icnn.faces import detectors
from jax_stn_icnn.faces.detectors import Detector
from jax_stn_icnn.inference.batching import Batching
from jax_stn_icnn.inference.devices import check_process, find_device, name_of
from jax_stn_icnn.inference.extension import Extension, FarFromParse, far_program
from jax_stn_icnn.inference.finishing import PhotoFinisher
from jax_stn_icnn.inference.locating import FaceLocator, Selection
from jax_stn_icnn.inference.programs import (
    LazyProgram,
    ModelProgram,
    Program,
    QuickStart,
    parse_program,
)
from jax_stn_icnn.inference.reading import PhotoReader, ReadPhoto
from jax_stn_icnn.inference.results import PhotoResult
from jax_stn_icnn.inference.tracking import FaceTracker
from jax_stn_icnn.inference.turning import RotationCheck
from jax_stn_icnn.io import weights
from jax_stn_icnn.models.pipeline import STNiCNN, variable_shapes

BATCH_SIZE = 4  # faces per call of the networks, where several photos are parsed

Photo = str | Path | Image.Image
Photos = list[Any] | tuple[Any, ...]


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
        min_score: float | None = None,
        exact_scores: bool = False,
        quick_start: bool = True,
        device: jax.Device | str | None = None,
    ):
        """Creates a parser from a model and its variables.

        Args:
            variables: `{"params": ..., "batch_stats": ...}` of the model.
            model: the networks.
            frame_size: side of the frames that the model was trained on, in pixels.
            detector: face detector, as in `load`.
            wide: as in `load`.
            min_face_size: side of the smallest detected faces, as in `load`.
            min_score: lowest score of detected faces, as in `load`.
            exact_scores: as in `load`.
            quick_start: as in `load`.
            device: where the networks run, as in `load`; by default where the variables are.

        Raises:
            FileNotFoundError: the file of the detector does not exist.
            RuntimeError: as in `load`.
            ValueError: the variables do not fit the model, a window is larger than the frame, the
                detector or the device is unknown, or `min_face_size` or `min_score` is invalid.
        """
        check_process()
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
        self.quick_start = quick_start
        self.detector = detectors.make_detector(detector, min_face_size)
        if min_score is not None and self.detector is detectors.cascade:
            raise ValueError(f"min_score is {min_score}, but the detector returns no scores")
        self._device = None if device is None else find_device(device)
        self._variables = jax.device_put(dict(variables), self._device)
        check = RotationCheck(model, self._variables, frame_size)
        self._locator = FaceLocator(check, frame_size, min_score)
        wide_size = model.config.coarse_image_size[0] if self.wide else None
        self._reader = PhotoReader(self._locator, frame_size, wide_size)
        self._programs: dict[int, LazyProgram] = {}  # by batch size
        far = far_program(model, self._variables)
        optimized_far = LazyProgram(far.compile)
        self._finisher = self._make_finisher(optimized_far)
        # What parses photos one by one at first.
        self._quick: tuple[Program, PhotoFinisher] | None = None
        self._quick_starts: tuple[QuickStart, ...] = ()
        if quick_start and far.device.platform == "cpu":
            parse = self._describe_program(1)
            quick = LazyProgram(parse.compile_quickly)
            quick_far = FarFromParse(quick, self._reader.frame_shapes(1)[0])
            start = QuickStart(quick, self._program(1), parse.is_cached)
            far_start = QuickStart(quick_far, optimized_far, far.is_cached)
            self._quick = start, self._make_finisher(far_start)
            self._quick_starts = start, far_start

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies the arguments; programs are read from the cache, or compiled again."""
        check_process()
        device = None if self._device is None else name_of(self._device)
        create = partial(
            type(self),
            wide=self.wide,
            min_score=self._locator.min_score,
            exact_scores=self.exact_scores,
            quick_start=self.quick_start,
            device=device,
        )
        variables = jax.device_get(self._variables)
        return create, (variables, self.model, self.frame_size, self.detector)

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
        min_score: float | None = None,
        exact_scores: bool = False,
        quick_start: bool = True,
        device: jax.Device | str | None = None,
        dtype: str = "float32",
    ) -> "FaceParser":
        """Creates a parser from a file of weights.

        Args:
            source: shipped weights, `"nineteen"`, the full face, or `"nine"`, the paper's brows,
                eyes, nose and lips; or a `.safetensors` file; or the directory of a run of
                `train.py`. By default `"nineteen"`.
            detector: face detector: `"yunet"`; `"cascade"`, OpenCV's Haar cascade; an `.onnx` file
                of YuNet; or a callable that takes a photo, uint8 (H, W, 3), and returns `boxes` or
                `landmarks` as in `__call__`, or `jax_stn_icnn.faces.detectors.Detections`, these
                with scores. Parsers may share it; it is called by one thread at a time.
            wide: whether to parse hair, neck, shoulders and clothes outside of the square around
                each face, too, if the weights are trained for it, as `"nineteen"` is.
            min_face_size: side of the smallest faces that YuNet returns, from forehead to chin, in
                pixels of the photo. By default large photos are searched for faces of 40, about 2
                times the distance of the eyes, and smaller ones that are found in other photos are
                parsed, too. The time for large photos is proportional to its inverse square.
            min_score: detected faces with a lower `FaceResult.score`, 0..1, are not parsed. YuNet
                returns none below 0.7.
            exact_scores: whether results store scores exactly, 23 MB per face; by default they are
                rounded to multiples of 1/255 and take 0.2 to 0.6 MB. Labels are the same.
            quick_start: whether, on a CPU, photos that are parsed one by one are first parsed by a
                program that is compiled in a third of the time, and takes twice as long per photo.
                From the second photo on, the optimized program is compiled in the background and
                then replaces it. Scores of the two differ by rounding, less than 1e-4.
            device: where the networks run: a `jax.Device`, or `"cpu"`, `"gpu"` or `"tpu"` for the
                first device of a platform, `"gpu:1"` for its second one; by default JAX's default
                device.
            dtype: type in which the networks compute, `"float32"` or `"bfloat16"`, which is faster
                on accelerators and less exact.

        Returns:
            The parser. It may be pickled and copied, and threads may share it.

        Raises:
            FileNotFoundError: a file does not exist.
            RuntimeError: this process was forked from one with a parser.
            ValueError: the file is not a file of weights or lacks an entry, the detector is
                unknown, `min_face_size` is not positive or given for another detector, `min_score`
                is outside of 0..1, there is no such device, or `dtype` is another one.
        """
        check_process()
        loaded = weights.load_weights(weights.weights_file(source))
        return cls(
            loaded.variables,
            STNiCNN(loaded.model.config.replace(dtype=dtype)),
            loaded.frame_size,
            detector,
            wide=wide,
            min_face_size=min_face_size,
            min_score=min_score,
            exact_scores=exact_scores,
            quick_start=quick_start,
            device=device,
        )

    @overload
    def __call__(
        self,
        image: Photo,
        *,
        boxes: Any = ...,
        landmarks: Any = ...,
        detect: bool = ...,
        max_faces: int | None = ...,
        largest: bool = ...,
    ) -> PhotoResult: ...
    @overload
    def __call__(
        self,
        image: Photos,
        *,
        boxes: Any = ...,
        landmarks: Any = ...,
        detect: bool = ...,
        max_faces: int | None = ...,
        largest: bool = ...,
    ) -> list[PhotoResult]: ...
    @overload
    def __call__(
        self,
        image: Any,
        *,
        boxes: Any = ...,
        landmarks: Any = ...,
        detect: bool = ...,
        max_faces: int | None = ...,
        largest: bool = ...,
    ) -> Any: ...

    def __call__(
        self,
        image: Any,
        *,
        boxes: Any = None,
        landmarks: Any = None,
        detect: bool = True,
        max_faces: int | None = None,
        largest: bool = False,
    ) -> PhotoResult | list[PhotoResult]:
        """Parses the faces in one or several photos.

        By default the detector locates the faces. A face with landmarks, such as YuNet's, is
        rotated upright before it is parsed; boxes are of upright faces.

        Args:
            image: a path; a Pillow image; an array (H, W), (H, W, 3) or (H, W, 4) in the order red,
                green, blue, opacity, uint8 or floats in 0..1; a list of these, or an array (N, H,
                W, 3 or 4). Of a file of several pictures the first is parsed.
            boxes: boxes of the faces, (faces, 4): (x0, y0, x1, y1) in pixels, each from forehead
                to chin and about square. For several photos, a sequence of these.
            landmarks: landmarks of the faces, (faces, 5, 2): (x, y) of the centers of eye 1 and eye
                2, the tip of the nose, and the corners 1 and 2 of the mouth; 1 is on the viewer's
                left. For several photos, a sequence of these.
            detect: False parses the full photo as one face, framed as in CelebAMask-HQ; a photo
                that is not square is padded with black.
            max_faces: parses at most this many of the detected faces, the largest ones.
            largest: whether to parse the largest of the detected faces only, as `max_faces=1`.

        Returns:
            The result, or a list of results for several photos. All labels of a photo without faces
            are background.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a photo cannot be read (`jax_stn_icnn.photos.reading.PhotoError`), or an
                argument or the output of the detector is invalid.
        """
        check_process()
        selection = Selection.checked(boxes, landmarks, detect, max_faces, largest)
        if not isinstance(image, list | tuple) and getattr(image, "ndim", 0) != 4:
            read = partial(self._reader.read, image, "image", self.detector, selection)
            for start in self._quick_starts:
                start.start_photo()
            (result,) = self._parse([read], 1, quick=self._quick)
            return result
        selections = selection.per_photo(len(image))
        reads = [
            partial(self._reader.read, photo, f"image {i}", self.detector, one)
            for i, (photo, one) in enumerate(zip(image, selections, strict=True))
        ]
        return list(self._parse(reads, BATCH_SIZE))

    @overload
    def stream(
        self,
        photos: Iterable[Any],
        *,
        detect: bool = ...,
        max_faces: int | None = ...,
        largest: bool = ...,
        batch_size: int = ...,
        errors: Literal["raise"] = ...,
    ) -> Iterator[PhotoResult]: ...
    @overload
    def stream(
        self,
        photos: Iterable[Any],
        *,
        detect: bool = ...,
        max_faces: int | None = ...,
        largest: bool = ...,
        batch_size: int = ...,
        errors: str,
    ) -> Iterator[PhotoResult | OSError | ValueError]: ...

    def stream(
        self,
        photos: Iterable[Any],
        *,
        detect: bool = True,
        max_faces: int | None = None,
        largest: bool = False,
        batch_size: int = BATCH_SIZE,
        errors: str = "raise",
    ) -> Iterator[PhotoResult | OSError | ValueError]:
        """Parses any number of photos in bounded memory.

        Reading, detection, the networks and resampling overlap, and a batch contains faces of
        several photos. Photos are requested only as results are taken.

        Args:
            photos: photos as in `__call__`.
            detect: as in `__call__`.
            max_faces: as in `__call__`.
            largest: as in `__call__`.
            batch_size: faces per call of the networks; accelerators benefit from larger batches.
            errors: "raise" ends the stream with the error of the first photo that cannot be read;
                "yield" yields the error in place of the result, and continues.

        Yields:
            The results, in the order of the photos.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a photo cannot be read, or an argument is invalid.
        """
        selection = Selection.checked(None, None, detect, max_faces, largest)
        if errors not in ("raise", "yield"):
            raise ValueError(f"errors is {errors!r}, but must be raise or yield")
        return self._parse(self._requests(photos, selection, batch_size), batch_size, errors)

    def track(
        self,
        frames: Iterable[Any],
        *,
        detect: bool = True,
        max_faces: int | None = None,
        largest: bool = False,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[PhotoResult]:
        """Parses the frames of a video or a camera, and follows the faces.

        `FaceResult.track` is the number of a person, the same in all frames. Where the picture is
        still, class scores are smoothed over the frames, so that noise does not move the borders of
        labels; where it moves, labels are those of the frame alone.

        Args:
            frames: consecutive frames, each as a photo in `__call__`, requested only as results are
                taken.
            detect: as in `__call__`.
            max_faces: as in `__call__`, for each frame.
            largest: as in `__call__`, for each frame.
            batch_size: as in `stream`. With 1, at most two frames are requested before the result
                of a frame, which suits a camera; more are faster.

        Yields:
            The results, in the order of the frames.

        Raises:
            OSError: a file cannot be opened.
            ValueError: a frame cannot be read, or an argument is invalid.
        """
        selection = Selection.checked(None, None, detect, max_faces, largest)
        requests = self._requests(frames, selection, batch_size)
        return self._parse(requests, batch_size, tracker=FaceTracker(self.frame_size))

    def _requests(
        self, photos: Iterable[Any], selection: Selection, batch_size: int
    ) -> Iterator[Callable[[], ReadPhoto]]:
        """Checks the arguments of a stream; returns calls that read the photos."""
        check_process()
        if isinstance(photos, Photo):
            raise ValueError(f"photos is one photo, {photos!r}, but must be photos: [{photos!r}]")
        if not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
            raise ValueError(f"batch_size is {batch_size}, but must be an integer of at least 1")
        return (
            self._reader.request(photo, f"photo {i}", self.detector, selection)
            for i, photo in enumerate(photos)
        )

    def _parse(
        self,
        reads: Iterable[Callable[[], ReadPhoto]],
        batch_size: int,
        errors: str = "raise",
        tracker: FaceTracker | None = None,
        quick: tuple[Program, PhotoFinisher] | None = None,
    ) -> Iterator[Any]:
        """Yields the results of photos in order; most arguments are those of `Batching.results`."""
        program, finisher = quick or (self._program(batch_size), self._finisher)
        batching = Batching(self._reader, partial(program, self._variables), finisher, batch_size)
        return batching.results(reads, errors, tracker)

    def _program(self, batch_size: int) -> LazyProgram:
        """Returns the optimized program for a batch size."""
        if batch_size not in self._programs:
            program = LazyProgram(self._describe_program(batch_size).compile)
            self._programs.setdefault(batch_size, program)  # Threads may be here.
        return self._programs[batch_size]

    def _describe_program(self, batch_size: int) -> ModelProgram:
        return parse_program(self.model, self._variables, *self._reader.frame_shapes(batch_size))

    def _make_finisher(self, far: Program) -> PhotoFinisher:
        extension = Extension(far, self._variables)
        return PhotoFinisher(self.model.config.anatomy, extension, self.exact_scores)
