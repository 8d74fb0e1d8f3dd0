"""Draws the picture of a group: drawn faces, upright and rotated, and their labels.

python docs/make_group.py [--ckpt PATH] [--out docs/group.jpg]
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from jax_stn_icnn import FaceParser
from tfds_builders.synthetic_faces.face import draw_face

# For each face: index of the drawn face, center (x, y), scale, angle in degrees.
PLACES = (
    (4, (150, 190), 1.0, -12),
    (7, (375, 170), 1.1, 0),
    (5, (600, 200), 1.2, 25),
    (1, (265, 420), 1.3, 8),
    (2, (505, 440), 1.2, -30),
)
SIZE = (600, 740)


def photo() -> np.ndarray:
    """Returns the group, uint8 (height, width, 3)."""
    rows = np.linspace(0, 1, SIZE[0])[:, None, None]
    image = np.broadcast_to((190, 200, 215) * (1 - rows) + (120, 130, 110) * rows, (*SIZE, 3))
    image = np.uint8(image)
    for index, middle, scale, degrees in PLACES:
        face, labels = draw_face("train", index)
        centre = (face.shape[1] - 1) / 2, (face.shape[0] - 1) / 2
        matrix = cv2.getRotationMatrix2D(centre, degrees, scale)
        matrix[:, 2] += np.subtract(middle, centre)
        there = cv2.warpAffine(np.uint8(labels > 0) * 255, matrix, SIZE[::-1])[..., None] / 255
        image = np.uint8(there * cv2.warpAffine(face, matrix, SIZE[::-1]) + (1 - there) * image)
    return image


def main() -> None:
    """Runs the command."""
    command = argparse.ArgumentParser(description="Draws the picture of a group.")
    command.add_argument("--ckpt", help="weights; by default the shipped ones")
    command.add_argument("--out", type=Path, default=Path(__file__).with_name("group.jpg"))
    args = command.parse_args()
    image = photo()
    parse = FaceParser.load(args.ckpt)(image)
    picture = parse.overlay(legend=True)
    beside = np.full_like(picture, 255)
    beside[: len(image)] = image
    Image.fromarray(np.hstack([beside, picture])).save(args.out, quality=88)


if __name__ == "__main__":
    main()
