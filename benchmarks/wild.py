"""Scores a parser on everyday photos: faces that are detected, and landmarks with the right class.

    python -m benchmarks.wild --photos wild.zip
    python -m benchmarks.wild --photos wild.zip --rotation 30 --grayscale --ckpt nine

The archive contains `photos/*.jpg` and `landmarks.json`: photo -> the 29 landmarks of COFW
(Burgos-Artizzu, Perona and Dollar, 2013) of one face in it. The classes of seven points are known:
two brows, two pupils, the tip of the nose, two lips.
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

# Indices of COFW's landmarks; a scored point is one of them or the middle of two.
BROWS, PUPILS, NOSE, UPPER_LIP, LOWER_LIP = ((4, 5), (6, 7)), (16, 17), 20, (24, 25), (26, 27)
FACE = (8, 9, 16, 17, 20, 22, 23)  # eyes, nose and mouth, which the box of a face contains
# A point counts if its class is within this radius, a fraction of the distance of the pupils.
RADIUS = 0.05

_PHOTOS = flags.DEFINE_string("photos", None, "Archive of the photos.", required=True)
_CKPT = flags.DEFINE_string("ckpt", None, "Weights, as for `stn-icnn parse`.")
_DETECTOR = flags.DEFINE_string("detector", "yunet", "yunet, cascade, or an .onnx file.")
_ROTATION = flags.DEFINE_float("rotation", 0.0, "Degrees that photos are rotated by first.")
_GRAYSCALE = flags.DEFINE_bool("grayscale", False, "Whether photos are converted to grayscale.")
_JSON = flags.DEFINE_string("json", None, "File that the scores are written to.")


class Photo(NamedTuple):
    """A photo of the archive.

    Attributes:
        name: Name of its file.
        image: uint8 (height, width, 3).
        landmarks: (x, y) of COFW's landmarks, (29, 2).
        points: Class -> (x, y) of its scored point.
    """

    name: str
    image: np.ndarray
    landmarks: np.ndarray
    points: dict[str, np.ndarray]


def read_photos(path: str, rotation: float = 0.0, grayscale: bool = False) -> Iterator[Photo]:
    """Yields the photos of an archive, in the order of their names.

    Args:
        path: The archive.
        rotation: Degrees, counterclockwise; the image is enlarged to contain the rotated photo.
        grayscale: Whether photos are converted to grayscale.

    Yields:
        The photos, with their points.
    """
    with zipfile.ZipFile(path) as archive:
        for name, landmarks in sorted(json.loads(archive.read("landmarks.json")).items()):
            image = to_rgb(Image.open(BytesIO(archive.read(f"photos/{name}"))), name)
            points = _points(np.array(landmarks, np.float64))
            if grayscale:
                image = to_rgb(Image.fromarray(image).convert("L"), name)
            image, matrix = _rotate(image, rotation)
            points = {c: matrix[:, :2] @ p + matrix[:, 2] for c, p in points.items()}
            yield Photo(name, image, np.array(landmarks) @ matrix[:, :2].T + matrix[:, 2], points)


def score(photo: Photo, result: PhotoResult) -> tuple[bool, int, dict[str, bool]]:
    """Scores the result of a photo.

    Args:
        photo: The photo.
        result: Its result.

    Returns:
        Whether the face with the landmarks is detected, the number of other faces, and for each
        point whether its class is near.
    """
    own = [face for face in result.faces if _fits(face, photo.landmarks)]
    radius = RADIUS * math.dist(photo.landmarks[PUPILS[0]], photo.landmarks[PUPILS[1]])
    rows, columns = np.indices(result.labels.shape)
    hits = {}
    for name, (x, y) in photo.points.items():
        # Half a diagonal at least, so that the circle contains a pixel.
        near = (rows - y) ** 2 + (columns - x) ** 2 <= max(radius, math.sqrt(0.5)) ** 2
        hits[name] = bool(own) and bool(np.any(result.mask(name)[near]))
    return bool(own), len(result.faces) - bool(own), hits


def main(argv: list[str]) -> None:
    """Parses all photos and prints the scores."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    cache.enable_cache(None)
    parser = FaceParser.load(_CKPT.value, detector=_DETECTOR.value, quick_start=False)
    detected, others, hits = [], 0, []
    photos = list(read_photos(_PHOTOS.value, _ROTATION.value, _GRAYSCALE.value))
    for photo in tqdm(photos, unit="photo"):
        is_detected, num_others, photo_hits = score(photo, parser(photo.image))
        detected.append(is_detected)
        others += num_others
        hits.append(list(photo_hits.values()))
    table = np.array(hits)
    scores = {
        "photos": len(photos),
        "detected": float(np.mean(detected)),
        "other faces": others,
        "points": float(table.mean()),
        "all seven": float(table.all(axis=1).mean()),
        **{name: float(table[:, i].mean()) for i, name in enumerate(photos[0].points)},
    }
    print("\n".join(f"{name:12s}{value:8.3f}" for name, value in scores.items()))
    if _JSON.value:
        with open(_JSON.value, "w") as file:
            json.dump(scores, file, indent=2)


def _points(landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the scored points; side 1 is on the viewer's left."""
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


def _rotate(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image rotated about its center, and the matrix that maps its pixels."""
    height, width = image.shape[:2]
    center = (width - 1) / 2, (height - 1) / 2
    matrix = np.array(cv2.getRotationMatrix2D(center, degrees, 1.0), np.float64)
    if not degrees:
        return image, matrix
    cos, sin = abs(matrix[0, :2])
    new = math.ceil(width * cos + height * sin), math.ceil(width * sin + height * cos)
    matrix[:, 2] += np.subtract(new, (width, height)) / 2
    return cv2.warpAffine(image, matrix, new), matrix


def _fits(face: FaceResult, landmarks: np.ndarray) -> bool:
    """Returns whether the box of a face fits the landmarks."""
    x0, y0, x1, y1 = face.box
    inside = (landmarks >= (x0, y0)) & (landmarks <= (x1, y1))
    length = np.ptp(landmarks, axis=0).max()
    return bool(
        inside[list(FACE)].all(axis=1).mean() > 0.7 and 0.5 < max(x1 - x0, y1 - y0) / length < 2.2
    )


if __name__ == "__main__":
    app.run(main)
