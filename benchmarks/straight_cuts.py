"""Measures how often masks of hair, neck and clothes end in the straight edge of a frame.

    python -m benchmarks.straight_cuts --photos wild.zip

The archive contains `photos/*.jpg`. Prints, for the parse of the square around each face and for
the wide parse, the share of the boundary pixels of these masks that lie within two pixels of an
edge of a frame; where the photo ends there is no boundary.
"""

import numpy as np
from absl import app, flags
from tqdm import tqdm

from benchmarks.wild import read_photos
from jax_stn_icnn import FaceParser
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.faces import resample
from jax_stn_icnn.inference.results import FaceResult, PhotoResult

CLASSES = ("hair", "neck", "cloth")
NEAR = 2.0  # pixels of the photo

FLAGS = flags.FLAGS  # those of `wild`


def boundary(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels of a mask beside a pixel outside of it, bool (height, width)."""
    padded = np.pad(mask, 1, mode="edge")  # The edge of the photo is no boundary.
    neighbors = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    return mask & ~np.all(neighbors, axis=0)


def is_near_edge(face: FaceResult, size: tuple[int, ...]) -> np.ndarray:
    """Returns which pixels of a photo of a size lie near an edge of one of a face's frames."""
    near = np.zeros(size, bool)
    y, x = np.indices(size)
    for matrix, side in face.frames:
        scale = np.hypot(*matrix[:, 0])
        center = (side - 1) / 2
        points = resample.transform_points(
            resample.invert_matrix(matrix), np.stack([x, y], axis=-1).astype(np.float64)
        )
        outside = np.abs(points - center).max(axis=-1) - side / 2
        near |= np.abs(outside) * scale <= NEAR
    return near


def count(result: PhotoResult) -> tuple[int, int]:
    """Returns the number of boundary pixels near an edge of a frame, and of all."""
    near = np.zeros(result.labels.shape, bool)
    for face in result.faces:
        near |= is_near_edge(face, near.shape)
    edges = [boundary(result.mask(name)) for name in CLASSES]
    return sum(int((edge & near).sum()) for edge in edges), sum(int(edge.sum()) for edge in edges)


def main(argv: list[str]) -> None:
    """Parses all photos and prints the shares."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    cache.enable_cache(None)
    photos = list(read_photos(FLAGS.photos))
    for wide in (False, True):
        parser = FaceParser.load(FLAGS.ckpt, wide=wide, quick_start=False)
        counts = [count(parser(photo.image)) for photo in tqdm(photos, unit="photo")]
        cut, total = np.sum(counts, axis=0)
        print(f"{'wide' if wide else 'square'}: {cut} of {total} pixels, {cut / total:.4f}")


if __name__ == "__main__":
    app.run(main)
