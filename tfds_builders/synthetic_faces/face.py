"""Draws a face, which depends only on its split and its index."""

from typing import NamedTuple

import numpy as np

from . import accessories, background, camera, classes, hair, skin
from .canvas import Canvas
from .head import SPLITS as SPLITS
from .head import Head, paint_head
from .pose import Grid

SIZE = 256


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
    head = Head.sample(split, index)
    traits, hairstyle, streams = head.traits, head.hairstyle, head.streams
    canvas, grid = Canvas(size), Grid.of(head.pose, size)

    background.paint_background(canvas, streams[4])
    hair.paint_behind(canvas, grid, traits, hairstyle)
    skin.paint_neck(canvas, grid, traits, head.lamp)
    background.paint_clothes(canvas, grid, streams[4])
    paint_head(canvas, grid, head)
    hair.paint_in_front(canvas, grid, traits, hairstyle)
    accessories.paint_occluder(canvas, grid, traits, streams[6])
    image = camera.photograph(canvas.image, streams[7], size)
    return Face(image, classes.FACE_IDS[canvas.label])
