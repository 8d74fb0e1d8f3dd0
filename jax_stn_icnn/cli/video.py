"""A video in, a video of overlays out; its sound is left behind."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.photos.reading import PhotoError

ENDING = ".overlay.mp4"
_CODEC = "mp4v"  # of all that OpenCV's wheels can write the one that most players know


def parse_video(parser: FaceParser, path: Path, base: Path, detect: bool, batch_size: int) -> int:
    """Writes a video of a video's overlays, whole or not at all.

    Args:
        parser: the parser.
        path: of the video.
        base: of the result, without its ending; its folder is made if need be.
        detect: whether faces are looked for; otherwise each frame is one.
        batch_size: how many faces go through the networks at once.

    Returns:
        How many faces its frames have.

    Raises:
        PhotoError: it is no video, or has no frame.
        OSError: the result cannot be written.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    target = base.with_name(base.name + ENDING)
    partial = target.with_name(f".{target.stem}.partial.mp4")
    video, writer = cv2.VideoCapture(str(path)), None
    try:
        if not video.isOpened():
            raise PhotoError(f"{path} is not a video of a known format")
        rate = video.get(cv2.CAP_PROP_FPS)
        expected = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        parses = parser.stream(_frames(video), detect=detect, batch_size=batch_size)
        num_frames = num_faces = 0
        for parse in tqdm(
            parses, path.name, expected if expected > 0 else None, unit="frame", leave=False
        ):
            picture = cv2.cvtColor(parse.overlay(), cv2.COLOR_RGB2BGR)
            if writer is None:
                fourcc = cv2.VideoWriter.fourcc(*_CODEC)
                size = picture.shape[1::-1]
                writer = cv2.VideoWriter(str(partial), fourcc, _writable(rate), size)
                if not writer.isOpened():
                    raise OSError(f"{partial} cannot be written by the installed OpenCV")
            writer.write(picture)
            num_frames += 1
            num_faces += len(parse.faces)
        if writer is None:
            raise PhotoError(f"{path} holds no frame that can be read")
        writer.release()
        _check_whole(partial, num_frames)
        os.replace(partial, target)
        return num_faces
    finally:
        video.release()
        if writer is not None:
            writer.release()
            partial.unlink(missing_ok=True)  # what an error has left


def is_there(base: Path) -> bool:
    """Whether a video has its result."""
    return os.path.exists(base.with_name(base.name + ENDING))


def _writable(rate: float) -> float:
    """The rate to write for what a video says its frames a second are."""
    if not 0.01 <= rate <= 1000:
        return 25.0
    # MPEG-4 holds a rate as a fraction of whole numbers of 16 bits.
    return round(rate, 3 if rate < 65 else 2 if rate < 650 else 1)


def _check_whole(path: Path, num_frames: int) -> None:
    """Raises if a video lacks frames that were written: OpenCV's writer says nothing of errors."""
    video = cv2.VideoCapture(str(path))
    there = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    if there != num_frames:
        raise OSError(f"{path} holds {there} of {num_frames} frames: is the disk full?")


def _frames(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        read, frame = video.read()
        if not read:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
