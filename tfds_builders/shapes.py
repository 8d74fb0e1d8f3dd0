"""Checks the shapes of a data set's images against the way in which training frames them."""

from collections.abc import Mapping
from typing import Literal

from tfds_builders.archive import Archive, error

Framing = Literal["resize", "pad", "face"]
"""How training frames images: resizes square ones, pads them, or frames their faces."""

_ALIGNED_SHARE = 0.9


def check_shapes(
    archive: Archive, sizes: Mapping[str, tuple[int, int]], framing: Framing | None
) -> None:
    """Checks that all images are square, if they must be or most of them are.

    Args:
      archive: the archive, for error messages.
      sizes: (height, width) of each image, by member name.
      framing: how training frames the images; only "resize" requires square ones. None if it is not
        known: images are then expected to be all square if more than nine in ten are.

    Raises:
      ArchiveError: if an image is not square but must be.
    """
    oblong = [member for member, (height, width) in sizes.items() if height != width]
    num_square = len(sizes) - len(oblong)
    required = framing == "resize" or (framing is None and num_square > _ALIGNED_SHARE * len(sizes))
    if not oblong or not required:
        return
    height, width = sizes[oblong[0]]
    raise error(
        archive,
        oblong[0],
        f"is {width} pixels wide and {height} high, but {num_square} of {len(sizes)} images are "
        "square, as training needs them to resize them to its frame",
        "crop it to a square, or, if training pads images or frames their faces, prepare with "
        "--framing=pad or --framing=face",
    )
