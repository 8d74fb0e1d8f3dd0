"""Reads the masks of a folder of images and masks: ids, two values, or colours."""

import numpy as np
from PIL import Image

from tfds_builders import images
from tfds_builders.archive import Archive, error
from tfds_builders.class_list import CLASSES, IGNORED_VALUE, ClassList, Colour

_BIT_DEPTH_OFFSET = 24  # of a PNG file: after the signature and the header's length, type and size


def read_values(archive: Archive, member: str, classes: ClassList) -> np.ndarray:
    """Reads a mask.

    Args:
      archive: the archive.
      member: the name of the mask.
      classes: the list of classes.

    Returns:
      uint8 (H, W) of ids or IGNORED_VALUE; in a data set of two classes perhaps 0 and 255 instead,
      which a single mask does not show. bool (H, W) if the mask has one bit per pixel.

    Raises:
      ArchiveError: if it is missing, truncated, not a PNG of ids or, if classes have colours, of
        these colours, or contains an id that no class has.
    """
    data = archive.read(member)
    image = images.decode(archive, member, data)
    if image.format != "PNG":
        remedy = "save it as PNG, which stores every pixel exactly"
        raise error(archive, member, f"is {image.format}, not PNG", remedy)
    if classes.colours:
        return _ids_from_colours(archive, member, image, classes.colours)
    count = len(classes.names)
    if image.mode == "1" and count == 2:
        return np.asarray(image)
    bits = data[_BIT_DEPTH_OFFSET]
    if image.mode not in ("L", "P") or (image.mode == "L" and bits != 8):
        raise error(
            archive,
            member,
            f"is PNG {image.mode} with {bits} bits, not an 8-bit PNG, grayscale or with a palette",
            f"save the class ids in this format, or end each line of {CLASSES} in its colour, "
            "such as #ff0000",
        )
    ids = np.asarray(image)
    unknown = (ids >= count) & (ids != IGNORED_VALUE)
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        problem = (
            f"contains id {ids[row, column]} at x {column}, y {row}, but {CLASSES} has {count} "
            "classes"
        )
        raise error(archive, member, problem, "ids start at 0; 255 is ignored")
    return ids


def _ids_from_colours(
    archive: Archive, member: str, image: Image.Image, colours: list[Colour]
) -> np.ndarray:
    """Returns the id of each pixel's colour, uint8 (H, W)."""
    if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
        remedy = f"save it in RGB, in the colours of {CLASSES}"
        raise error(archive, member, f"has mode {image.mode}", remedy)
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        remedy = f"paint each pixel in a colour of {CLASSES}"
        raise error(archive, member, "has transparent pixels", remedy)
    pixels = _codes(np.asarray(image.convert("RGB")))
    codes = _codes(np.array(colours))
    order = np.argsort(codes)
    ids = order[np.searchsorted(codes, pixels, sorter=order).clip(max=len(codes) - 1)]
    unknown = codes[ids] != pixels
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        problem = (
            f"contains the colour #{pixels[row, column]:06x} at x {column}, y {row}, which "
            f"{CLASSES} does not list"
        )
        raise error(archive, member, problem, f"add it to {CLASSES}, or repaint the mask")
    return ids.astype(np.uint8)


def _codes(colours: np.ndarray) -> np.ndarray:
    """Returns 0xrrggbb for each colour, (..., 3) to (...)."""
    return colours.astype(np.int64) @ np.array([0x10000, 0x100, 1])
