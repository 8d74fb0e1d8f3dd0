"""A drawn person: a head with hair, a hat on some, neck, shoulders and clothes."""

import dataclasses
from typing import NamedTuple

import numpy as np

from . import classes, hair, hats, long_hair
from .body import Build, bent_grid, paint_skin
from .canvas import Canvas
from .clothes import Outfit, paint_clothes
from .head import Head, paint_head
from .pose import Grid

# A head lies in a square of this side around its origin, and its hair and shoulders in a window
# that reaches by so much over it and to its sides; in units of head coordinates.
_HEAD_SIDE, _ABOVE, _BESIDE = 4.4, 2.3, 3.4


class Place(NamedTuple):
    """Place of a head on a canvas, in pixels."""

    x: float
    """Distance of the head's origin, about midway between the eyes, from the left."""
    y: float
    """Distance of the head's origin from the top."""
    unit: float
    """Length of one unit of head coordinates."""


@dataclasses.dataclass(frozen=True)
class Person:
    """A person, who depends only on split and index."""

    head: Head
    build: Build
    outfit: Outfit
    hat: hats.Hat | None
    long_hair: long_hair.LongHair | None

    @classmethod
    def sample(cls, split: str, index: int) -> "Person":
        """Samples the person with the head of a drawn face.

        Args:
          split: split of the face.
          index: index of the face in its split.

        Returns:
          The person.

        Raises:
          ValueError: if there is no such split, or the index is negative.
        """
        head = Head.sample(split, index)
        worn, body = head.streams[8:10]
        hat = hats.Hat.sample(worn, head.traits)
        hairstyle = hat.under(head.hairstyle) if hat else head.hairstyle
        long = long_hair.LongHair.sample(worn, hairstyle)
        head = dataclasses.replace(head, hairstyle=long.above(hairstyle) if long else hairstyle)
        build = Build.sample(body, head.traits)
        return cls(head, build, Outfit.sample(body, head.traits.feminine), hat, long)


def margin(unit: float) -> int:
    """Returns how far a canvas must reach beyond a head's origin on all sides, in pixels."""
    return int(0.5 * _HEAD_SIDE * unit) + 2


def paint_person(canvas: Canvas, person: Person, place: Place) -> tuple[Canvas, Grid]:
    """Paints a person from the hair down to the lower edge of the canvas.

    Args:
      canvas: the canvas to paint on; it reaches by `margin` beyond the head's origin.
      person: the person.
      place: place of the head.

    Returns:
      The window of the canvas with the person, and its grid.
    """
    head = person.head
    traits, hairstyle, lamp = head.traits, head.hairstyle, head.lamp
    body, bent = _body(canvas, person, place)
    square, grid = _square(canvas, person, place)
    hair.paint_behind(body, bent, traits, hairstyle)
    paint_skin(body, bent, traits, person.build, lamp)
    paint_clothes(body, bent, person.build, person.outfit, lamp)
    for window, lens in paint_head(square, grid, head):
        shown = square.label[window.rows, window.columns]
        eyes_and_brows = (shown >= classes.LEFT_BROW) & (shown <= classes.RIGHT_EYE)
        square.classify(window, np.where(eyes_and_brows, 1.0, lens), classes.GLASSES)
    hair.paint_in_front(body, bent, traits, hairstyle)
    if person.long_hair:
        long_hair.paint_locks(body, bent, traits, hairstyle, person.long_hair)
    if person.hat:
        hats.paint_hat(square, grid, traits, hairstyle, person.hat)
    return body, bent


def _body(canvas: Canvas, person: Person, place: Place) -> tuple[Canvas, Grid]:
    """Returns the window of hair and body, down to the lower edge, and its grid."""
    height, width = canvas.label.shape
    top = max(int(place.y - _ABOVE * place.unit), 0)
    left = max(int(place.x - _BESIDE * place.unit), 0)
    right = min(int(place.x + _BESIDE * place.unit), width)
    part = canvas.part(slice(top, height), slice(left, right))
    size = right - left
    pose = dataclasses.replace(
        person.head.pose,
        x=(place.x - left) / size,
        y=(place.y - top) / size,
        unit=place.unit / size,
    )
    return part, bent_grid(pose, size, part.label.shape)


def _square(canvas: Canvas, person: Person, place: Place) -> tuple[Canvas, Grid]:
    """Returns the square of the head and its grid."""
    side = int(_HEAD_SIDE * place.unit)
    top, left = int(place.y - side / 2), int(place.x - side / 2)
    pose = dataclasses.replace(
        person.head.pose,
        x=(place.x - left) / side,
        y=(place.y - top) / side,
        unit=place.unit / side,
    )
    part = canvas.part(slice(top, top + side), slice(left, left + side))
    return part, Grid.of(pose, side)
