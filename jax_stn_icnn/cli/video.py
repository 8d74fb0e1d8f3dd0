"""Parses a video into videos of overlays, labels and masks, and a JSON file; `outputs` lists them.

Labels and masks are lossless streams (FFV1 in Matroska) rather than folders of PNG files: one file
each, complete or absent, with the times of the frames, which PNG files lose.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jax_stn_icnn.atomic import write_text
from jax_stn_icnn.cli import video_file
from jax_stn_icnn.cli.outcome import Outcome
from jax_stn_icnn.cli.outputs import (
    JSON,
    VIDEO_CUTOUT,
    VIDEO_LABELS,
    VIDEO_OVERLAY,
    Outputs,
    mask_suffix,
)
from jax_stn_icnn.cli.progress import Progress
from jax_stn_icnn.cli.video_file import VideoFile
from jax_stn_icnn.cli.writer import named_classes
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.inference.results import PhotoResult
from jax_stn_icnn.photos.video import Video

Draw = Callable[[PhotoResult], np.ndarray]


def parse_video(
    parser: FaceParser,
    path: Path,
    base: Path,
    outputs: Outputs,
    fingerprint: str,
    options: Mapping[str, Any],
) -> Outcome:
    """Parses a video and writes its output files, each complete or absent, the JSON last.

    Args:
        parser: the parser.
        path: path of the video.
        base: path of the files without suffixes; missing folders are created.
        outputs: the files to write.
        fingerprint: fingerprint of the video.
        options: options of `FaceParser.track`.

    Returns:
        The outcome, with the number of faces in all frames.

    Raises:
        PhotoError: the file is not a video or has no frames, or the extra `video` is missing.
        OSError: the files cannot be written.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    times: deque[int] = deque()  # of frames whose results have not been taken
    entries: list[dict[str, Any]] = []
    result = None
    with Video(path) as video, _Writers(base, video, outputs) as writers:

        def images() -> Iterator[np.ndarray]:
            for frame in video.frames(writers.add_sound):
                times.append(frame.pts)
                yield frame.image

        with Progress(video.num_frames, "frame", path.name, leave=False) as progress:
            for result in parser.track(images(), **options):
                pts = times.popleft()
                writers.add(result, pts)
                entries.append(_entry(result, float(pts * video.time_base)))
                progress.update(len(result.faces))
        writers.finish()
        num_damaged = video.num_damaged
    assert result is not None  # `frames` raises an error if there are none.
    text = _to_json(base.name, result, outputs.ids, entries, fingerprint)
    write_text(base.with_name(base.name + JSON), text)
    num_faces = sum(len(entry["faces"]) for entry in entries)
    notes = _notes(result, outputs, num_faces, num_damaged)
    return Outcome(num_faces, note=f"{path}: {'; '.join(notes)}" if notes else None)


class _Writers:
    """The videos that are written for a video."""

    def __init__(self, base: Path, video: Video, outputs: Outputs):
        """Creates the files under temporary names."""
        self.add_sound: Callable[[Any], None] = lambda packet: None
        self._files: list[tuple[VideoFile, Draw]] = []
        for suffix, (format, draw) in _streams(outputs).items():
            path = base.with_name(base.name + suffix)
            sound = video.sound if suffix == VIDEO_OVERLAY else None
            file = VideoFile(path, format, video.rate, video.time_base, sound)
            self._files.append((file, draw))
            if sound is not None:
                self.add_sound = file.add_sound

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, *_: object) -> None:
        for file, _draw in self._files:
            file.discard()

    def add(self, result: PhotoResult, pts: int) -> None:
        """Adds a frame to all files."""
        for file, draw in self._files:
            file.add(draw(result), pts)

    def finish(self) -> None:
        """Completes all files, and gives them their names."""
        for file, _ in self._files:
            file.finish()
        for file, _ in self._files:
            file.replace()


def _streams(outputs: Outputs) -> dict[str, tuple[video_file.Format, Draw]]:
    """Returns for each suffix the format of the video, and the function that draws its frames."""

    def labels(result: PhotoResult) -> np.ndarray:
        return result.labels if outputs.ids is None else result.labels_as(outputs.ids)

    def mask(name: str) -> Draw:
        return lambda result: result.mask(name) * np.uint8(255)

    def soft_mask(name: str) -> Draw:
        return lambda result: np.round(result.soft_mask(name) * 255).astype(np.uint8)

    streams: dict[str, tuple[video_file.Format, Draw]] = {
        VIDEO_OVERLAY: (video_file.H264, PhotoResult.overlay),
        VIDEO_LABELS: (video_file.FFV1, labels),
        VIDEO_CUTOUT: (video_file.VP9, PhotoResult.cutout),
    }
    for name in outputs.masks:
        streams[mask_suffix(name, extension="mkv")] = video_file.FFV1, mask(name)
        streams[mask_suffix(name, True, "mkv")] = video_file.FFV1, soft_mask(name)
    return {suffix: streams[suffix] for suffix in outputs.video_suffixes()}


def _entry(result: PhotoResult, seconds: float) -> dict[str, Any]:
    """Returns what the JSON file tells about a frame; coordinates are rounded to .01 pixels."""
    faces = [
        {
            "track": face.track,
            "box": np.round(face.box, 2).tolist(),
            "score": face.score,
            "landmarks": None if face.landmarks is None else np.round(face.landmarks, 2).tolist(),
        }
        for face in result.faces
    ]
    return {"time": round(seconds, 6), "faces": faces}


def _to_json(
    name: str, result: PhotoResult, ids: str | None, entries: list[dict[str, Any]], fingerprint: str
) -> str:
    """Returns the content of the JSON file, a line for each frame."""
    height, width = result.image.shape[:2]
    classes, colours = named_classes(result.anatomy, ids)
    head = {
        "video": name,
        "width": width,
        "height": height,
        "classes": classes,
        "palette": colours,
        "fingerprint": fingerprint,
    }
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in entries)
    return f'{json.dumps(head)[:-1]}, "frames": [\n{lines}\n]}}\n'


def _notes(result: PhotoResult, outputs: Outputs, num_faces: int, num_damaged: int) -> list[str]:
    """Returns what the user should know about a parsed video."""
    height, width = result.image.shape[:2]
    notes = [] if num_faces else ["no face is found"]
    if height % 2 or width % 2:
        padded = f"{width + width % 2} x {height + height % 2}"
        notes.append(
            f"H.264 has even sides, so the overlay is padded from {width} x {height} to {padded}"
        )
    if num_damaged:
        notes.append(f"{num_damaged} damaged packets are left out")
    if outputs.per_face or outputs.coco:
        notes.append("--per-face and --format coco apply to photos only")
    return notes
