"""What photos as people take them do to the parser: faces found, and landmarks in their class.

    python -m benchmarks.wild --photos wild.zip
    python -m benchmarks.wild --photos wild.zip --turn 30 --grey --ckpt nine --detector cascade

The archive holds `photos/*.jpg` and `landmarks.json`: photo -> the 29 landmarks of COFW
(Burgos-Artizzu, Perona and Dollar, 2013) of one face in it. Of seven points the class is known: two
brows, two pupils, the tip of the nose, two lips.
"""

import json
import math
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from absl import app, flags
from PIL import Image
from tqdm import tqdm

from jax_stn_icnn import FaceParser
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.inference.results import FaceResult, PhotoResult
from jax_stn_icnn.photos.reading import to_rgb

# COFW's landmarks, of which each point that is scored is the middle of some.
BROWS, PUPILS, NOSE, UPPER_LIP, LOWER_LIP = ((4, 5), (6, 7)), (16, 17), 20, (24, 25), (26, 27)
FACE = (8, 9, 16, 17, 20, 22, 23)  # what of a face a box must hold: eyes, nose, mouth
NEAR = 0.05  # of the distance between the pupils, within which a point's class must lie

_PHOTOS = flags.DEFINE_string("photos", None, "The archive.", required=True)
_CKPT = flags.DEFINE_string("ckpt", None, "Weights, as for `stn-icnn parse`.")
_DETECTOR = flags.DEFINE_string("detector", "yunet", "yunet, cascade, or an .onnx file.")
_TURN = flags.DEFINE_float("turn", 0.0, "Degrees by which the photos are turned first.")
_GREY = flags.DEFINE_bool("grey", False, "Whether the photos are made grey first.")
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")


class Photo(NamedTuple):
    """A photo, and where the points that are scored lie: class -> (x, y)."""

    name: str
    image: np.ndarray
    landmarks: np.ndarray
    points: dict[str, np.ndarray]


def read_photos(path: str, turn: float = 0.0, grey: bool = False) -> Iterator[Photo]:
    """The photos of an archive, each with its points.

    Args:
        path: of the archive.
        turn: degrees, counterclockwise; the picture grows so that nothing is lost.
        grey: whether colour is taken away.

    Yields:
        The photos, in the order of their names.
    """
    with zipfile.ZipFile(path) as archive:
        for name, landmarks in sorted(json.loads(archive.read("landmarks.json")).items()):
            image = to_rgb(Image.open(BytesIO(archive.read(f"photos/{name}"))), name)
            points = _points(np.array(landmarks, np.float64))
            if grey:
                image = to_rgb(Image.fromarray(image).convert("L"), name)
            image, matrix = _turned(image, turn)
            there = {c: matrix[:, :2] @ p + matrix[:, 2] for c, p in points.items()}
            yield Photo(name, image, np.array(landmarks) @ matrix[:, :2].T + matrix[:, 2], there)


def score(photo: Photo, parse: PhotoResult) -> tuple[bool, int, dict[str, bool]]:
    """Scores a parse: whether the face is found, how many others are, and each point's class."""
    own = [face for face in parse.faces if _is_of(face, photo.landmarks)]
    radius = NEAR * math.dist(photo.landmarks[PUPILS[0]], photo.landmarks[PUPILS[1]])
    rows, columns = np.indices(parse.labels.shape)
    hits = {}
    for name, (x, y) in photo.points.items():
        # At least the pixel that the point lies in.
        near = (rows - y) ** 2 + (columns - x) ** 2 <= max(radius, math.sqrt(0.5)) ** 2
        hits[name] = bool(own) and bool(np.any(parse.mask(name)[near]))
    return bool(own), len(parse.faces) - bool(own), hits


def main(argv: list[str]) -> None:
    """Parses all photos and prints the figures."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    cache.enable_cache(None)
    parser = FaceParser.load(_CKPT.value, detector=_DETECTOR.value)
    found, others, hits = [], 0, []
    for photo in tqdm(list(read_photos(_PHOTOS.value, _TURN.value, _GREY.value)), unit="photo"):
        own, more, of_points = score(photo, parser(photo.image))
        found.append(own)
        others += more
        hits.append(list(of_points.values()))
    table = np.array(hits)
    figures = {
        "photos": len(found),
        "found": float(np.mean(found)),
        "others": others,
        "points": float(table.mean()),
        "all seven": float(table.all(axis=1).mean()),
        **{name: float(table[:, i].mean()) for i, name in enumerate(of_points)},
    }
    print("\n".join(f"{name:12s}{value:8.3f}" for name, value in figures.items()))
    if _JSON.value:
        with open(_JSON.value, "w") as file:
            json.dump(figures, file, indent=2)


def _points(landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """The points that are scored, side 1 being on the viewer's left."""
    brows = sorted((landmarks[list(ends)].mean(axis=0) for ends in BROWS), key=lambda p: p[0])
    eyes = sorted(landmarks[list(PUPILS)], key=lambda p: p[0])
    return {
        "brow_1": brows[0],
        "brow_2": brows[1],
        "eye_1": eyes[0],
        "eye_2": eyes[1],
        "nose": landmarks[NOSE],
        "upper_lip": landmarks[list(UPPER_LIP)].mean(axis=0),
        "lower_lip": landmarks[list(LOWER_LIP)].mean(axis=0),
    }


def _turned(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture turned about its middle, and the matrix that carries its pixels there."""
    height, width = image.shape[:2]
    middle = (width - 1) / 2, (height - 1) / 2
    matrix = np.array(cv2.getRotationMatrix2D(middle, degrees, 1.0), np.float64)
    if not degrees:
        return image, matrix
    cos, sin = abs(matrix[0, :2])
    new = math.ceil(width * cos + height * sin), math.ceil(width * sin + height * cos)
    matrix[:, 2] += np.subtract(new, (width, height)) / 2
    return cv2.warpAffine(image, matrix, new), matrix


def _is_of(face: FaceResult, landmarks: np.ndarray) -> bool:
    """Whether a face that was found is the one that has these landmarks."""
    x0, y0, x1, y1 = face.box
    inside = (landmarks >= (x0, y0)) & (landmarks <= (x1, y1))
    length = np.ptp(landmarks, axis=0).max()
    return bool(
        inside[list(FACE)].all(axis=1).mean() > 0.7 and 0.5 < max(x1 - x0, y1 - y0) / length < 2.2
    )


if __name__ == "__main__":
    app.run(main)
