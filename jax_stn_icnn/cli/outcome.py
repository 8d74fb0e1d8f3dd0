"""The outcome of parsing an input of the command."""

from pathlib import Path
from typing import NamedTuple

from jax_stn_icnn.photos.reading import count_frames


class Outcome(NamedTuple):
    """The outcome of parsing a photo or video.

    Attributes:
        num_faces: the number of faces; of a video, in all frames.
        error: why it could not be parsed; None if it was.
        note: what the user should know about it; None if there is nothing.
    """

    num_faces: int = 0
    error: str | None = None
    note: str | None = None

    @classmethod
    def of_photo(cls, num_faces: int, path: Path, name: str) -> "Outcome":
        """Returns the outcome of a parsed photo.

        Args:
            num_faces: its number of faces.
            path: its file; a note tells if it contains several pictures.
            name: name of the photo in the note.
        """
        number = count_frames(path)
        note = f"{name} contains {number} pictures; the first is parsed" if number > 1 else None
        return cls(num_faces, note=note)
