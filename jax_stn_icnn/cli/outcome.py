"""The outcome of parsing an input of the command."""

from pathlib import Path
from typing import NamedTuple

from jax_stn_icnn.atomic import is_disk_error
from jax_stn_icnn.photos.reading import count_frames


class Outcome(NamedTuple):
    """The outcome of parsing a photo or video.

    Attributes:
        num_faces: the number of faces; of a video, in all frames. None if it could not be parsed,
            or was parsed by a worker that has died since.
        error: why it could not be parsed; None if it was.
        note: what the user should know about it; None if there is nothing.
        ends: whether no further result can be written, since a disk is full or read-only.
    """

    num_faces: int | None = None
    error: str | None = None
    note: str | None = None
    ends: bool = False

    @classmethod
    def of_error(cls, error: Exception) -> "Outcome":
        """Returns the outcome if a result cannot be written."""
        return cls(error=str(error), ends=is_disk_error(error))

    @classmethod
    def of_photo(cls, num_faces: int, path: Path, name: str) -> "Outcome":
        """Returns the outcome of a parsed photo.

        Args:
            num_faces: its number of faces.
            path: its file. Notes tell if it contains several pictures, or no face was found.
            name: name of the photo in notes.
        """
        notes = [] if num_faces else ["no face is found"]
        if (number := count_frames(path)) > 1:
            notes.append(f"the file contains {number} pictures, of which the first is parsed")
        return cls(num_faces, note=f"{name}: {'; '.join(notes)}" if notes else None)

    def renamed(self, before: str, after: str) -> "Outcome":
        """Returns the same outcome with another name of the input in its texts."""
        error, note = (text and text.replace(before, after) for text in (self.error, self.note))
        return self._replace(error=error, note=note)
