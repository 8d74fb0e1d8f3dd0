"""Images: read from an archive, with every fault turned into an error, and encoded."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image

from tfds_builders.archive import Archive, error


def read_rgb(
    archive: Archive, member: str, formats: Sequence[str] = ("JPEG",)
) -> tuple[bytes, tuple[int, int]]:
    """Reads a colour photograph and decodes it once, to be sure that it is whole.

    Args:
      archive: the archive.
      member: the name of the image.
      formats: Pillow's names of those that it may have.

    Returns:
      The file's own bytes, and its size as (height, width).

    Raises:
      ArchiveError: if it is absent, cut short, or not RGB of one of these formats.
    """
    data = archive.read(member)
    image = _decode(archive, member, data)
    if image.format not in formats or image.mode != "RGB":
        wanted = " or ".join(formats)
        raise error(archive, member, f"is {image.format} {image.mode}, not an RGB {wanted}")
    return data, (image.height, image.width)


def is_turned(data: bytes) -> bool:
    """Whether viewers turn or mirror an image before they show it, as photos of phones say."""
    with Image.open(io.BytesIO(data)) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1


def read_ids(archive: Archive, member: str) -> np.ndarray:
    """Reads a mask, grey or with a palette, whose pixels are ids of classes.

    Args:
      archive: the archive.
      member: the name of the mask.

    Returns:
      uint8 (H, W).

    Raises:
      ArchiveError: if it is absent, cut short, or no PNG of one byte a pixel.
    """
    image = _decode(archive, member, archive.read(member))
    if image.format != "PNG" or image.mode not in ("L", "P"):
        raise error(
            archive,
            member,
            f"is {image.format} {image.mode}, not an 8-bit PNG, grey or with a palette",
            "save the ids of the classes so",
        )
    return np.asarray(image)


def read_gray(archive: Archive, member: str, data: bytes) -> np.ndarray:
    """Decodes an 8-bit image without colours.

    Args:
      archive: the archive, for the errors.
      member: the name of the image, for the errors.
      data: the file's bytes.

    Returns:
      uint8 (H, W). An image with equal colour channels gives their common value.

    Raises:
      ArchiveError: if it is cut short or has another mode than L, RGB or RGBA.
    """
    image = _decode(archive, member, data)
    if image.mode not in ("L", "RGB", "RGBA"):
        raise error(archive, member, f"has mode {image.mode}, not 8-bit grey or RGB")
    return np.asarray(image.convert("L"))


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes an array as PNG.

    TFDS encodes arrays by means of TensorFlow only; bytes it takes as they are.

    Args:
      pixels: uint8, (H, W) for class ids or (H, W, 3) for colours.

    Returns:
      The bytes of the PNG file.
    """
    file = io.BytesIO()
    # Pillow's own level, 6, takes 1.6 times as long and saves 2 % of a drawn face.
    Image.fromarray(pixels).save(file, "PNG", compress_level=4)
    return file.getvalue()


def _decode(archive: Archive, member: str, data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError) as fault:  # what Pillow raises for damaged files
        # Pillow's text for an unknown format names a memory address.
        reason = "it is no image" if isinstance(fault, Image.UnidentifiedImageError) else fault
        raise error(archive, member, f"cannot be decoded ({reason})") from fault
    return image
