"""One drawn face, and nothing but its index decides which."""

from typing import NamedTuple

import numpy as np

from . import accessories, backdrop, brows, camera, eyes, hair, mouth, nose, skin
from .anatomy import Anatomy
from .canvas import Canvas
from .lighting import Lamp
from .pose import Grid, Pose

SIZE = 256
SPLITS = ("train", "validation", "test")
_SEED = 20130623


class Face(NamedTuple):
    """A drawn face."""

    image: np.ndarray
    """uint8 (size, size, 3), RGB."""
    label: np.ndarray
    """uint8 (size, size): the classes of `classes.CLASSES`."""


def draw_face(split: str, index: int, size: int = SIZE) -> Face:
    """Draws a face.

    Args:
      split: one of SPLITS; each has its own faces.
      index: number of the face in its split, from 0.
      size: side of the image in pixels; the same face is drawn at any size.

    Returns:
      The image and the classes of its pixels. A pixel has the class of what covers its centre.

    Raises:
      ValueError: if there is no such split, or the index is negative.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    if index < 0:
        raise ValueError(f"index must not be negative; got {index}")
    # One stream a layer: a change in one layer leaves the others as they were.
    seeds = np.random.SeedSequence([_SEED, SPLITS.index(split), index]).spawn(8)
    streams = [np.random.default_rng(seed) for seed in seeds]
    pose, anatomy = Pose.sample(streams[0]), Anatomy.sample(streams[1])
    lamp, hairdo = Lamp.sample(streams[2]), hair.Hairdo.sample(streams[3], anatomy)
    canvas, grid = Canvas(size), Grid.of(pose, size)

    backdrop.paint_background(canvas, streams[4])
    hair.paint_behind(canvas, grid, anatomy, hairdo)
    skin.paint_neck(canvas, grid, anatomy, lamp)
    backdrop.paint_clothes(canvas, grid, streams[4])
    skin.paint_ears(canvas, grid, anatomy)
    skin.paint_face(canvas, grid, anatomy, lamp, streams[5])
    skin.paint_beard(canvas, grid, anatomy, streams[5])
    nose.paint_nose(canvas, grid, anatomy)
    mouth.paint_mouth(canvas, grid, anatomy, streams[5])
    eyes.paint_eyes(canvas, grid, anatomy, lamp, streams[5])
    brows.paint_brows(canvas, grid, anatomy, streams[5])
    accessories.paint_glasses(canvas, grid, anatomy, streams[6])
    hair.paint_in_front(canvas, grid, anatomy, hairdo)
    accessories.paint_occluder(canvas, grid, anatomy, streams[6])
    image = camera.photograph(canvas.image, streams[7])
    return Face(image, canvas.label)
