"""The canvas: an image and the class of each of its pixels, which are painted together."""

import copy

import numpy as np

from . import classes, fields
from .pose import Grid

Colour = np.ndarray
"""(3,) for one colour, (3, H, W) for one per pixel; RGB, 0 black and 1 white."""


class Canvas:
    """An image, float32 (3, H, W), and its classes, uint8 (H, W).

    The image is RGB, 0 black and 1 white; highlights may exceed 1.
    """

    def __init__(self, size: int | tuple[int, int]):
        """Creates a black image, all background.

        Args:
          size: side of a square in pixels, or (H, W).
        """
        shape = (size, size) if isinstance(size, int) else size
        # Channels first: numpy is several times faster if the long axes are the inner ones.
        self.image = np.zeros((3, *shape), np.float32)
        self.label = np.full(shape, classes.BACKGROUND, np.uint8)

    def part(self, rows: slice, columns: slice) -> "Canvas":
        """Returns a window as a canvas; painting on it paints on this one."""
        part = copy.copy(self)
        part.image, part.label = self.image[:, rows, columns], self.label[rows, columns]
        return part

    def paint(
        self,
        grid: Grid,
        field: np.ndarray,
        colour: Colour,
        label: int | None,
        opacity: float | np.ndarray = 1.0,
    ) -> None:
        """Paints a shape over the image and its classes.

        Args:
          grid: the window of the field.
          field: float (H, W), negative inside the shape.
          colour: colour of the shape.
          label: class of the pixels whose centres are inside; None does not change the classes.
          opacity: weight of the colour where the shape covers a pixel; a scalar or (H, W).
        """
        inside = field < 0.0
        if not inside.any():
            return
        if label is not None:
            self.classify(grid, field, label)
        # Most shapes are small in their windows; outside this box they cover nothing.
        box = (_extent(np.any(inside, axis=1)), _extent(np.any(inside, axis=0)))
        alpha = fields.coverage(field[box]) * np.broadcast_to(opacity, field.shape)[box]
        colours = np.broadcast_to(_planes(colour), (3, *field.shape))[:, *box]
        _mix(self.image[:, grid.rows, grid.columns][:, *box], alpha, colours)

    def classify(self, grid: Grid, field: np.ndarray, label: int) -> None:
        """Sets the class of the pixels whose centres are inside a shape; does not change the image.

        Args:
          grid: the window of the field.
          field: float (H, W), negative inside the shape.
          label: the class.
        """
        self.label[grid.rows, grid.columns][field < 0.0] = label

    def blend(self, grid: Grid, alpha: np.ndarray, colour: Colour) -> None:
        """Blends a colour into a window; does not change the classes.

        Args:
          grid: the window.
          alpha: float (H, W), the weight of the colour.
          colour: the colour.
        """
        _mix(self.image[:, grid.rows, grid.columns], alpha, _planes(colour))

    def darken(self, grid: Grid, amount: np.ndarray) -> None:
        """Multiplies green and blue of a window by 1 - amount, and red by its square root.

        Args:
          grid: the window.
          amount: float (H, W) below 1.
        """
        light = 1.0 - amount
        target = self.image[:, grid.rows, grid.columns]
        target[0] *= np.sqrt(light)
        target[1:] *= light


def _planes(colour: Colour) -> np.ndarray:
    """Returns a colour as float32 (3, 1, 1) or (3, H, W)."""
    colour = np.asarray(colour, np.float32)
    return colour[:, np.newaxis, np.newaxis] if colour.ndim == 1 else colour


def _mix(target: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> None:
    target += alpha * (colour - target)


def _extent(hit: np.ndarray) -> slice:
    """Returns the slice from the first to the last hit, with the two pixels of a soft edge."""
    where = np.flatnonzero(hit)
    return slice(max(int(where[0]) - 2, 0), int(where[-1]) + 3)
