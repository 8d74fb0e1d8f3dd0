"""Draws a photo of a group of people who overlap, with the owner of every pixel."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from . import camera, classes
from .background import paint_background
from .canvas import Canvas
from .lighting import Lamp
from .person import Person, Place, margin, paint_person

SIZE = (800, 1200)
_SEED = 20261129
# Distances in head coordinates of the nearest row: between neighbours, between the heads of two
# rows, above the farthest row, and below the nearest.
_NEXT, _UP, _TOP, _BOTTOM = 3.1, 2.3, 2.0, 3.0
# Size of a head relative to one in the row before it.
_FARTHER = 0.86


class Group(NamedTuple):
    """A drawn group."""

    image: np.ndarray
    """uint8 (H, W, 3), RGB."""
    label: np.ndarray
    """uint8 (H, W), indices of `classes.PORTRAIT_CLASSES`."""
    owner: np.ndarray
    """int16 (H, W), index of the person to whom a pixel belongs; -1 for background. The nearest
    person has the largest index."""


def draw_group(seed: int, count: int = 8, size: tuple[int, int] = SIZE) -> Group:
    """Draws people in rows, of whom the nearer ones hide parts of the farther ones.

    Hair, neck and clothes overlap; faces are almost entirely visible.

    Args:
      seed: determines people and places; 0 or more.
      count: number of people, 1 or more.
      size: (H, W) of the image in pixels.

    Returns:
      The image, and each pixel's class and owner.

    Raises:
      ValueError: if the seed is negative or there are no people.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative; got {seed}")
    if count < 1:
        raise ValueError(f"count must be 1 or more; got {count}")
    rng = np.random.default_rng([_SEED, seed])
    height, width = size
    places = _places(rng, count, size)
    edge = max(margin(place.unit) for place in places)
    canvas = Canvas((height + 2 * edge, width + 2 * edge))
    inside = slice(edge, edge + height), slice(edge, edge + width)
    paint_background(canvas.part(*inside), rng, heads=0.0)
    label, owner = canvas.label.copy(), np.full(canvas.label.shape, -1, np.int16)
    lamp = Lamp.sample(rng)
    for index, place in enumerate(places):
        # Over the image of those behind, but with classes of one person only.
        canvas.label[:] = classes.BACKGROUND
        person = _member(rng, lamp)
        paint_person(canvas, person, place._replace(x=place.x + edge, y=place.y + edge))
        painted = canvas.label != classes.BACKGROUND
        label[painted], owner[painted] = canvas.label[painted], index
    unit = float(np.mean([place.unit for place in places]))
    image = camera.photograph(canvas.part(*inside).image, rng, unit / 0.375)
    return Group(image, classes.PORTRAIT_IDS[label[inside]], owner[inside].copy())


def _member(rng: np.random.Generator, lamp: Lamp) -> Person:
    person = Person.sample("train", int(rng.integers(2**31)))
    hat = person.hat
    if hat and hat.kind == "brim":
        hat = dataclasses.replace(hat, brim=1.3)  # a wider one hides the faces behind it
    return dataclasses.replace(person, head=dataclasses.replace(person.head, lamp=lamp), hat=hat)


def _places(rng: np.random.Generator, count: int, size: tuple[int, int]) -> list[Place]:
    """Samples places in staggered rows, from the farthest to the nearest person."""
    height, width = size
    rows = max(round(math.sqrt(count * height / width * _NEXT / _UP / 1.1)), 1)
    columns = math.ceil(count / rows)
    unit = min(width / (_NEXT * columns + 0.5), height / (_TOP + _UP * (rows - 1) + _BOTTOM))
    members = [len(part) for part in np.array_split(np.arange(count), rows)]
    places = []
    for row, people in enumerate(reversed(members)):
        behind = rows - 1 - row
        y = height - unit * (_BOTTOM + _UP * behind)
        step = min(width / (people + 0.25), _NEXT * unit * rng.uniform(0.95, 1.15))
        first = 0.5 * width + step * (rng.uniform(-0.3, 0.3) - 0.5 * (people - 1))
        for place in rng.permutation(people):
            places.append(
                Place(
                    x=first + step * place + unit * rng.uniform(-0.25, 0.25),
                    y=y + unit * rng.uniform(-0.2, 0.2),
                    unit=unit * _FARTHER**behind * rng.uniform(0.85, 1.1),
                )
            )
    return places
