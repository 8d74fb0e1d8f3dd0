"""Reads videos as viewers show them, with PyAV (extra `video`).

The rotation that phones store is applied, and pixels that are not square are resampled to square
ones. Only container formats that refer to no other file are opened.
"""

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from jax_stn_icnn.photos.reading import PhotoError

_FORMATS = "asf,avi,flv,m4v,matroska,mov,mp4,mpeg,mpegts,webm"
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
# Videos of at least this height whose file names no colour space have that of HD television.
_HD = 720
_UNSPECIFIED = 2  # colour space in FFmpeg


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        image: RGB, uint8 (height, width, 3).
        pts: when it is shown, in units of `Video.time_base`; greater than that of the frame before.
    """

    image: np.ndarray
    pts: int


class Video:
    """An open video.

    Attributes:
        time_base: unit of the frames' times, in seconds.
        rate: mean number of frames per second; 25 if the file does not tell.
        num_frames: number of frames, possibly an estimate; None if the file does not tell.
        sound: PyAV's first stream of sound; None if there is none.
        num_damaged: number of packets that could not be decoded so far, and were left out.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Opens a video.

        Raises:
            OSError: the file cannot be opened.
            PhotoError: the file is not a video, or PyAV is not installed.
        """
        self._av, self._path = import_av(str(path)), path
        try:
            self._file = self._av.open(str(path), options=_OPTIONS)
        except ValueError as error:
            raise PhotoError(f"{path} is not a video of a known format") from error
        # Streams whose codec FFmpeg does not know have no context.
        pictures = [stream for stream in self._file.streams.video if stream.codec_context]
        if not pictures:
            self._file.close()
            raise PhotoError(f"{path} is not a video: it has no pictures that can be decoded")
        self._pictures = max(pictures, key=lambda stream: stream.frames != 1)  # 1: a cover
        sounds = [stream for stream in self._file.streams.audio if stream.codec_context]
        self.sound = sounds[0] if sounds else None
        self.time_base: Fraction = self._pictures.time_base
        self.rate = self._pictures.average_rate or self._pictures.guessed_rate or Fraction(25)
        seconds = (self._file.duration or 0) / self._av.time_base
        self.num_frames: int | None = self._pictures.frames or round(seconds * self.rate) or None
        self.num_damaged = 0

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def frames(self, on_sound: Callable[[Any], None]) -> Iterator[Frame]:
        """Yields the frames.

        Args:
            on_sound: called with each packet of `sound`, in the order of the file.

        Raises:
            PhotoError: the file has no frame that can be read.
        """
        streams = [self._pictures] if self.sound is None else [self._pictures, self.sound]
        last: int | None = None
        for packet in self._packets(streams):
            if packet.stream is self.sound:
                on_sound(packet)
                continue
            for frame in self._decode(packet):
                pts = self._next(last) if frame.pts is None else frame.pts
                last = pts if last is None else max(pts, last + 1)
                yield Frame(self._upright_rgb(frame), last)
        if last is None:
            raise PhotoError(f"{self._path} has no frame that can be read")

    def _packets(self, streams: list[Any]) -> Iterator[Any]:
        """Yields the packets of streams, of the pictures also the empty one that ends them."""
        try:
            for packet in self._file.demux(streams):
                if packet.stream is self._pictures or packet.dts is not None:
                    yield packet
        except self._av.error.FFmpegError as error:
            raise PhotoError(f"{self._path} cannot be read: {error.strerror}") from error

    def _decode(self, packet: Any) -> list[Any]:
        """Returns the frames of a packet; counts it if it is damaged."""
        try:
            return list(packet.decode())
        except self._av.error.InvalidDataError:
            self.num_damaged += 1
            return []

    def _next(self, last: int | None) -> int:
        """Returns the time of a frame without one, by the rate."""
        return 0 if last is None else last + max(round(1 / (self.rate * self.time_base)), 1)

    def _upright_rgb(self, frame: Any) -> np.ndarray:
        """Converts a frame to RGB with square pixels, and rotates it upright."""
        unnamed = frame.colorspace == _UNSPECIFIED and frame.height >= _HD
        aspect = self._pictures.sample_aspect_ratio or 1
        image = frame.reformat(
            width=round(frame.width * aspect),
            format="rgb24",
            src_colorspace="ITU709" if unnamed else None,
        ).to_ndarray()
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def import_av(path: str) -> Any:
    """Returns the module of PyAV, which reads and writes videos.

    Args:
        path: the video, for the error message.

    Raises:
        PhotoError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise PhotoError(
            f"{path} is a video, which needs the extra video: pip install 'jax-stn-icnn[video]'"
        ) from error
    return av
