"""A folder of photos as records without labels: one face per photo, framed as in the parser."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax_stn_icnn.data.framing import find_frame
from jax_stn_icnn.faces import detectors, framing, resample
from jax_stn_icnn.photos import files
from jax_stn_icnn.photos.reading import to_rgb


class FaceFolder:
    """Random-access source of the largest face of each photo; without a face, the full photo.

    Photos are read and faces detected on access. Indices 0 .. len - 1 give dicts of `image`, uint8
    (frame_size, frame_size, 3), and `name`.
    """

    def __init__(self, folder: Path, frame_size: int):
        """Lists the photos.

        Args:
            folder: searched recursively.
            frame_size: side of the frames.

        Raises:
            FileNotFoundError: the folder does not exist or contains no photo.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        inputs = files.find_files([folder], None, recursive=True).inputs
        self._paths = [file.path for file in inputs if not file.is_video]
        if not self._paths:
            raise FileNotFoundError(f"{folder} contains no photo")
        self._frame_size = frame_size

    def __len__(self) -> int:
        """The number of photos."""
        return len(self._paths)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Returns the record of a photo.

        Raises:
            OSError: the photo cannot be opened.
            ValueError: the photo cannot be read; the message names it.
        """
        path = self._paths[index]
        photo, size = to_rgb(path), self._frame_size
        # Created per photo: OpenCV's detectors serve one thread at a time and cannot be pickled.
        frame = find_frame(photo, detectors.make_single_view_detector())
        matrix = framing.resize_frame(frame, size)
        return {"image": resample.warp(photo, matrix, (size, size)), "name": str(path)}
