"""Follows faces through the frames of a video: gives them identities, and frames that stand still.

Detected landmarks jitter, even if nothing moves, and each other frame gives slightly other labels.
The frame of a face therefore stays where it is while the detected frame moves by less than
`_STILL`. Labels do not lag by this: the networks parse the present picture, in a frame that is a
little off.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jax_stn_icnn.faces import resample
from jax_stn_icnn.inference.locating import LocatedFace
from jax_stn_icnn.inference.temporal import ScoreSmoother

# Mean distances of the corners of two frames, in sides of the frame: of a face that stands still,
# and of a face in two pictures, at most.
_STILL = 0.05
_SAME = 0.5
_GAIN = 0.5  # of the velocity, per unit of an error of the expected place
_REMEMBERED = 30  # pictures for which a face may be hidden and keep its identity


@dataclasses.dataclass(eq=False)
class Track:
    """A face that is followed.

    Attributes:
        number: identity of the face, 0 for the first one.
        matrix: its steady frame, pixels of the frame -> pixels of the photo.
        corners: corners of its detected frame, or where they are expected, (x, y), (4, 2).
        velocity: mean movement of the corners per picture, (x, y).
        num_hidden: number of pictures since it was detected.
        smoothers: smooth the scores of the frame, the wide frame and the far frame.
    """

    number: int
    matrix: np.ndarray
    corners: np.ndarray
    velocity: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))
    num_hidden: int = 0
    smoothers: tuple[ScoreSmoother, ...] = dataclasses.field(
        default_factory=lambda: (ScoreSmoother(), ScoreSmoother(), ScoreSmoother())
    )


class FaceTracker:
    """Follows the faces of one video, picture by picture."""

    def __init__(self, frame_size: int):
        """Starts without faces.

        Args:
            frame_size: side of the frames in pixels.
        """
        self._frame_size = frame_size
        self._tracks: list[Track] = []
        self._count = 0

    def follow(self, faces: Sequence[LocatedFace]) -> list[Track]:
        """Returns the tracks of the faces in the next picture, in the same order.

        Faces that were in the picture before are assigned first, the nearest pairs first, then
        those that have been hidden since.

        Args:
            faces: the faces that are located in the picture.
        """
        for track in self._tracks:
            track.corners = track.corners + track.velocity
            track.num_hidden += 1
        found = [self._corners(face.matrix) for face in faces]
        assigned: dict[int, Track] = {}
        visible = [track for track in self._tracks if track.num_hidden == 1]
        hidden = [track for track in self._tracks if track.num_hidden > 1]
        for tracks in (visible, hidden):
            pairs = [
                (_distance(t.corners, found[i]), t.number, i, t)
                for t in tracks
                for i in range(len(found))
            ]
            for distance, _, i, track in sorted(pairs, key=lambda pair: pair[:3]):
                if distance <= _SAME and i not in assigned and track not in assigned.values():
                    assigned[i] = track
        for i, (face, corners) in enumerate(zip(faces, found, strict=True)):
            if i not in assigned:
                assigned[i] = self._new_track(face.matrix, corners)
            self._move(assigned[i], face.matrix, corners)
        self._tracks = [track for track in self._tracks if track.num_hidden <= _REMEMBERED]
        return [assigned[i] for i in range(len(faces))]

    def _new_track(self, matrix: np.ndarray, corners: np.ndarray) -> Track:
        track = Track(self._count, matrix, corners)
        self._tracks.append(track)
        self._count += 1
        return track

    def _move(self, track: Track, matrix: np.ndarray, corners: np.ndarray) -> None:
        """Moves a track to where its face is detected."""
        error = (corners - track.corners).mean(axis=0)
        track.velocity = track.velocity + _GAIN * error
        track.corners, track.num_hidden = corners, 0
        if _distance(self._corners(track.matrix), corners) > _STILL:
            track.matrix = matrix

    def _corners(self, matrix: np.ndarray) -> np.ndarray:
        return resample.corners(matrix, (self._frame_size, self._frame_size))


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the mean distance of the corners of two frames, in sides of the smaller one."""
    side = min(np.linalg.norm(corners[1] - corners[0]) for corners in (one, other))
    return float(np.linalg.norm(one - other, axis=1).mean() / side)
