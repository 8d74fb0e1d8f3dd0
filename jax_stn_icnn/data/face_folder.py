"""A folder of photos as records without labels: a face each, framed as the parser frames it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jax_stn_icnn.faces import detectors, framing, resample
from jax_stn_icnn.photos import files
from jax_stn_icnn.photos.reading import to_rgb


class FaceFolder:
    """The largest face of each photo of a folder; of a photo without one, the whole photo.

    Photos are read, and faces found, when they are asked for. Indexed by 0 .. len - 1, it gives
    dicts of `image`, uint8 (frame_size, frame_size, 3), and `name`.
    """

    def __init__(self, folder: Path, frame_size: int):
        """Lists the photos.

        Args:
            folder: searched with the folders inside it.
            frame_size: side of the frames.

        Raises:
            FileNotFoundError: there is no such folder, or no photo in it.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        found = files.find_files([folder], None, recursive=True)
        self._paths = [source.path for source in found.sources if not source.is_video]
        if not self._paths:
            raise FileNotFoundError(f"{folder} holds no photo")
        self._frame_size = frame_size

    def __len__(self) -> int:
        """How many photos there are."""
        return len(self._paths)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """The record of a photo.

        Raises:
            OSError: the photo cannot be opened.
            ValueError: it cannot be read; the message names it.
        """
        path = self._paths[index]
        photo, size = to_rgb(path), self._frame_size
        # Made anew: OpenCV's serve one thread at a time, and do not travel to worker processes.
        found = detectors.make_detector("yunet")(photo)
        _, frames = framing.of_detector(found, photo.shape, size)
        # The matrix's first column is as long as the face is large.
        largest = max(
            frames,
            key=lambda matrix: np.linalg.norm(matrix[:, 0]),
            default=framing.frame_around_photo(photo.shape[:2], size),
        )
        return {"image": resample.pull(photo, largest, (size, size)), "name": str(path)}
