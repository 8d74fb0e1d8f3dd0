"""Parses a video and writes a video of overlays, without sound."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jax_stn_icnn.atomic import temporary_path
from jax_stn_icnn.cli.outputs import VIDEO
from jax_stn_icnn.cli.progress import Progress
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.photos.reading import PhotoError

_FULL = 2**20  # bytes; a disk with fewer has no room for a video
_CODEC = "mp4v"  # of the codecs in OpenCV's wheels, the one that most players decode


def parse_video(parser: FaceParser, path: Path, base: Path, options: Mapping[str, Any]) -> int:
    """Writes the overlays of a video as a video, atomically.

    Args:
        parser: the parser.
        path: path of the video.
        base: path of the result without its suffix; missing folders are created.
        options: options of `FaceParser.stream`.

    Returns:
        The number of faces in all frames.

    Raises:
        PhotoError: the file is not a video or has no frames.
        OSError: the result cannot be written.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    target = base.with_name(base.name + VIDEO)
    temporary = temporary_path(target)
    video, writer = cv2.VideoCapture(str(path)), None
    try:
        if not video.isOpened():
            raise PhotoError(f"{path} is not a video of a known format")
        rate = video.get(cv2.CAP_PROP_FPS)
        expected = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        total = expected if expected > 0 else None
        num_frames = num_faces = 0
        with Progress(total, "frame", path.name, leave=False) as progress:
            for result in parser.stream(_frames(video), **options):
                picture = cv2.cvtColor(result.overlay(), cv2.COLOR_RGB2BGR)
                if writer is None:
                    fourcc = cv2.VideoWriter.fourcc(*_CODEC)
                    size = picture.shape[1::-1]
                    writer = cv2.VideoWriter(str(temporary), fourcc, writable_rate(rate), size)
                    if not writer.isOpened():
                        raise OSError(f"{temporary} cannot be written by the installed OpenCV")
                writer.write(picture)
                num_frames += 1
                num_faces += len(result.faces)
                progress.update(len(result.faces))
        if writer is None:
            raise PhotoError(f"{path} has no frame that can be read")
        writer.release()
        _check_complete(temporary, num_frames)
        os.replace(temporary, target)
        return num_faces
    finally:
        video.release()
        if writer is not None:
            writer.release()
            temporary.unlink(missing_ok=True)  # exists only after an error


def is_complete(base: Path, path: Path) -> bool:
    """Whether the result of a video exists and is not older than the video.

    Args:
        base: path of the result without its suffix.
        path: path of the video.
    """
    try:
        written = os.stat(base.with_name(base.name + VIDEO)).st_mtime_ns
    except OSError:  # It does not exist; where it cannot, writing reports the error.
        return False
    return written >= os.stat(path).st_mtime_ns


def writable_rate(rate: float) -> float:
    """Rounds a frame rate to one that MPEG-4 stores; returns 25 for an implausible rate."""
    if not 0.01 <= rate <= 1000:
        return 25.0
    # MPEG-4 stores a rate as a ratio of 16-bit integers.
    return round(rate, 3 if rate < 65 else 2 if rate < 650 else 1)


def _check_complete(path: Path, num_frames: int) -> None:
    """Raises an error if frames are missing in a written video: OpenCV's writer reports none."""
    video = cv2.VideoCapture(str(path))
    written = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    if written != num_frames:
        if shutil.disk_usage(path.parent).free < _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        raise OSError(f"{path} has {written} of {num_frames} frames")


def _frames(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        success, frame = video.read()
        if not success:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
