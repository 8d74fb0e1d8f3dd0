"""Draws a face, which depends only on its split and its index."""

from typing import NamedTuple

import numpy as np

from . import accessories, background, brows, camera, eyes, hair, mouth, nose, skin
from .canvas import Canvas
from .lighting import Lamp
from .pose import Grid, Pose
from .traits import Traits

SIZE = 256
SPLITS = ("train", "validation", "test")
_SEED = 20130623


class Face(NamedTuple):
    """A drawn face."""

    image: np.ndarray
    """uint8 (size, size, 3), RGB."""
    label: np.ndarray
    """uint8 (size, size), indices of `classes.CLASSES`."""


def draw_face(split: str, index: int, size: int = SIZE) -> Face:
    """Draws a face.

    Args:
      split: one of SPLITS; their faces differ.
      index: index of the face in its split, from 0.
      size: side of the image in pixels; the face is the same at any size.

    Returns:
      The image and the classes of its pixels. A pixel has the class of the shape that covers its
      centre.

    Raises:
      ValueError: if there is no such split, or the index is negative.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    if index < 0:
        raise ValueError(f"index must not be negative; got {index}")
    # One stream per layer: a change in one layer does not change the others.
    seeds = np.random.SeedSequence([_SEED, SPLITS.index(split), index]).spawn(8)
    streams = [np.random.default_rng(seed) for seed in seeds]
    pose, traits = Pose.sample(streams[0]), Traits.sample(streams[1])
    lamp, hairstyle = Lamp.sample(streams[2]), hair.Hairstyle.sample(streams[3], traits)
    canvas, grid = Canvas(size), Grid.of(pose, size)

    background.paint_background(canvas, streams[4])
    hair.paint_behind(canvas, grid, traits, hairstyle)
    skin.paint_neck(canvas, grid, traits, lamp)
    background.paint_clothes(canvas, grid, streams[4])
    skin.paint_ears(canvas, grid, traits)
    skin.paint_face(canvas, grid, traits, lamp, streams[5])
    skin.paint_beard(canvas, grid, traits, streams[5])
    nose.paint_nose(canvas, grid, traits)
    mouth.paint_mouth(canvas, grid, traits, streams[5])
    eyes.paint_eyes(canvas, grid, traits, lamp, streams[5])
    brows.paint_brows(canvas, grid, traits, streams[5])
    accessories.paint_glasses(canvas, grid, traits, streams[6])
    hair.paint_in_front(canvas, grid, traits, hairstyle)
    accessories.paint_occluder(canvas, grid, traits, streams[6])
    image = camera.photograph(canvas.image, streams[7])
    return Face(image, canvas.label)
