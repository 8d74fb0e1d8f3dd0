"""Writes videos with PyAV: H.264 that browsers play, lossless gray, frames with transparency."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_stn_icnn.atomic import temporary_path
from jax_stn_icnn.photos.video import import_av

# Sound that browsers play in MP4, and which is copied. Other sound is encoded again as AAC.
_COPIED = ("aac", "flac", "mp3", "mp3float", "opus", "libopus")
_SAMPLE_RATE = 48_000
_BT709 = 1  # colour space, primaries and transfer function of HD television, in FFmpeg
_LIMITED = 1  # range of brightness 16..235, likewise


class Format(NamedTuple):
    """How a video is encoded.

    Attributes:
        encoder: name of FFmpeg's encoder.
        pixels: FFmpeg's format of encoded pixels.
        array: FFmpeg's format of the given arrays.
        options: options of the encoder.
        container_options: options of the container, whose format follows from the suffix.
        even: whether width and height must be even.
    """

    encoder: str
    pixels: str
    array: str
    options: dict[str, str]
    container_options: dict[str, str] = {}
    even: bool = False


# Browsers play only 4:2:0. With the index first, a video starts before it is loaded.
H264 = Format(
    "libx264",
    "yuv420p",
    "rgb24",
    {"crf": "20", "preset": "veryfast"},
    {"movflags": "+faststart"},
    even=True,
)
# Class ids, masks and soft masks: every value is stored as it is.
FFV1 = Format("ffv1", "gray", "gray", {"level": "3", "slicecrc": "1"})
VP9 = Format(
    "libvpx-vp9",
    "yuva420p",
    "rgba",
    {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"},
)


class VideoFile:
    """A video that is written under a temporary name, until `replace` renames it."""

    def __init__(
        self,
        path: Path,
        format: Format,
        rate: Fraction,
        time_base: Fraction,
        sound: Any = None,
    ):
        """Creates the file.

        Args:
            path: the final path.
            format: how frames are encoded.
            rate: mean number of frames per second.
            time_base: unit of the frames' times, in seconds.
            sound: stream of sound of the video that is parsed, whose packets `add_sound` gets.
        """
        self._path, self._temporary = path, temporary_path(path)
        self._format = format
        self._av = import_av(str(path))
        self._file = self._av.open(str(self._temporary), "w", options=format.container_options)
        self._stream = self._file.add_stream(format.encoder, rate=rate, options=format.options)
        self._stream.pix_fmt = format.pixels
        self._stream.codec_context.time_base = time_base
        self._time_base = time_base
        self._sound: Any = None if sound is None else self._add_sound_stream(sound)
        self._copies = self._sound is not None and sound.codec_context.name in _COPIED
        self._waiting: list[Any] = []  # sound before the first frame
        self._started = False

    def add(self, picture: np.ndarray, pts: int) -> None:
        """Adds a frame.

        Args:
            picture: uint8 (height, width) or (height, width, channels).
            pts: its time, in units of the time base.
        """
        if self._format.even:
            picture = pad_to_even(picture)
        context = self._stream.codec_context
        if not self._started:
            context.height, context.width = picture.shape[:2]
            if self._format.pixels != "gray":
                context.colorspace = context.color_primaries = context.color_trc = _BT709
                context.color_range = _LIMITED
        elif picture.shape[:2] != (context.height, context.width):
            raise ValueError(
                f"{self._path} has frames of {context.width} x {context.height} pixels, but one "
                f"has {picture.shape[1]} x {picture.shape[0]}"
            )
        frame = self._av.VideoFrame.from_ndarray(picture, self._format.array)
        if self._format.pixels != self._format.array:
            frame = frame.reformat(format=self._format.pixels, dst_colorspace="ITU709")
        frame.pts, frame.time_base = pts, self._time_base
        with self._naming_errors():
            self._file.mux(self._stream.encode(frame))
        self._started = True
        for packet in self._waiting:
            self.add_sound(packet)
        self._waiting.clear()

    def add_sound(self, packet: Any) -> None:
        """Adds a packet of the sound."""
        if not self._started:
            self._waiting.append(packet)
            return
        with self._naming_errors():
            if self._copies:
                packet.stream = self._sound
                self._file.mux([packet])
                return
            for frame in packet.decode():
                self._file.mux(self._sound.encode(frame))

    def finish(self) -> None:
        """Completes the file under its temporary name."""
        with self._naming_errors():
            self._file.mux(self._stream.encode(None))
            if self._sound is not None and not self._copies:
                self._file.mux(self._sound.encode(None))
            self._file.close()

    def replace(self) -> None:
        """Renames the file to its final path."""
        os.replace(self._temporary, self._path)

    def discard(self) -> None:
        """Closes and removes the temporary file, if it exists."""
        with contextlib.suppress(self._av.error.FFmpegError):  # The file is removed anyway.
            self._file.close()
        if self._temporary.exists():  # On a read-only disk, unlinking any name is an error.
            self._temporary.unlink()

    def _add_sound_stream(self, sound: Any) -> Any:
        if sound.codec_context.name in _COPIED:
            return self._file.add_stream_from_template(sound)
        layout = "mono" if sound.codec_context.channels == 1 else "stereo"
        return self._file.add_stream("aac", rate=_SAMPLE_RATE, layout=layout)

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        """Raises errors of FFmpeg as errors of the file."""
        try:
            yield
        except self._av.error.FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def pad_to_even(picture: np.ndarray) -> np.ndarray:
    """Repeats the last row and column of a picture where their number is odd."""
    height, width = picture.shape[:2]
    if not (height % 2 or width % 2):
        return picture
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
