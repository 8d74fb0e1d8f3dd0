"""Draws a portrait: the head of a drawn face, smaller, with long hair, shoulders and clothes."""

import numpy as np

from . import accessories, camera, classes
from .background import paint_background
from .canvas import Canvas
from .face import Face
from .person import Person, Place, margin, paint_person

SIZE = 512


def draw_portrait(split: str, index: int, size: int = SIZE) -> Face:
    """Draws a person in a wide picture, with the head of `draw_face` of the same split and index.

    Args:
      split: one of SPLITS; their faces differ.
      index: index of the face in its split, from 0.
      size: side of the image in pixels; the person is the same at any size.

    Returns:
      The image and the classes of its pixels, indices of `classes.PORTRAIT_CLASSES`. The hair of
      about a third of the people reaches to shoulders, chest or waist.

    Raises:
      ValueError: if there is no such split, or the index is negative.
    """
    person = Person.sample(split, index)
    streams = person.head.streams
    place = _place(streams[10], size)
    edge = margin(place.unit)
    canvas = Canvas(size + 2 * edge)
    picture = canvas.part(slice(edge, edge + size), slice(edge, edge + size))
    paint_background(picture, streams[4], heads=0.0)
    moved = place._replace(x=place.x + edge, y=place.y + edge)
    body, grid = paint_person(canvas, person, moved)
    hand = accessories.paint_occluder(body, grid, person.head.traits, streams[6])
    if hand:
        accessories.paint_sleeve(body, grid, hand, person.outfit.sleeve)
    # Blur is proportional to the head, as in a frame that the head fills.
    image = camera.photograph(picture.image, streams[7], place.unit / 0.375)
    return Face(image, classes.PORTRAIT_IDS[picture.label])


def _place(rng: np.random.Generator, size: int) -> Place:
    """Samples a place at which the head is in the picture, and what is below the hips is not."""
    unit = rng.uniform(0.085, 0.24)
    top = max(1.7 * unit, 1.0 - 6.5 * unit)
    return Place(size * rng.uniform(0.3, 0.7), size * rng.uniform(top, max(top, 0.55)), size * unit)
