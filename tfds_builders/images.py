"""Reads images from an archive, with every fault turned into an error, and encodes them."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image

from tfds_builders.archive import Archive, error


def read_rgb(
    archive: Archive, member: str, formats: Sequence[str] = ("JPEG",)
) -> tuple[bytes, tuple[int, int]]:
    """Reads an RGB image, and decodes it once to check that it is complete.

    Args:
      archive: the archive.
      member: the name of the image.
      formats: the accepted formats, as Pillow names them.

    Returns:
      The file's bytes, unchanged, and the image's (height, width).

    Raises:
      ArchiveError: if it is missing, truncated, or not RGB in one of the formats.
    """
    data = archive.read(member)
    image = _decode(archive, member, data)
    if image.format not in formats or image.mode != "RGB":
        expected = " or ".join(formats)
        raise error(archive, member, f"is {image.format} {image.mode}, not an RGB {expected}")
    return data, (image.height, image.width)


def has_exif_orientation(data: bytes) -> bool:
    """Returns whether viewers rotate or mirror an image, as its EXIF orientation requires."""
    with Image.open(io.BytesIO(data)) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1


def read_ids(archive: Archive, member: str) -> np.ndarray:
    """Reads a mask, grayscale or with a palette, whose pixels are class ids.

    Args:
      archive: the archive.
      member: the name of the mask.

    Returns:
      uint8 (H, W).

    Raises:
      ArchiveError: if it is missing, truncated, or not a PNG of one byte per pixel.
    """
    image = _decode(archive, member, archive.read(member))
    if image.format != "PNG" or image.mode not in ("L", "P"):
        raise error(
            archive,
            member,
            f"is {image.format} {image.mode}, not an 8-bit PNG, grayscale or with a palette",
            "save the class ids in this format",
        )
    return np.asarray(image)


def decode_gray(archive: Archive, member: str, data: bytes) -> np.ndarray:
    """Decodes an 8-bit image to grayscale.

    Args:
      archive: the archive, for error messages.
      member: the name of the image, for error messages.
      data: the file's bytes.

    Returns:
      uint8 (H, W). Where an image's three channels are equal, it is their common value.

    Raises:
      ArchiveError: if it is truncated, or its mode is not L, RGB or RGBA.
    """
    image = _decode(archive, member, data)
    if image.mode not in ("L", "RGB", "RGBA"):
        raise error(archive, member, f"has mode {image.mode}, not 8-bit grayscale, RGB or RGBA")
    return np.asarray(image.convert("L"))


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes an array as PNG.

    TFDS needs TensorFlow to encode arrays; it stores bytes unchanged.

    Args:
      pixels: uint8, (H, W) for class ids or (H, W, 3) for RGB.

    Returns:
      The bytes of the PNG file.
    """
    file = io.BytesIO()
    # Pillow's default level, 6, takes 1.6 times as long and saves 2 % of a drawn face.
    Image.fromarray(pixels).save(file, "PNG", compress_level=4)
    return file.getvalue()


def _decode(archive: Archive, member: str, data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError) as fault:  # Pillow's errors for damaged files
        # Pillow's text for an unknown format contains a memory address.
        reason = "not an image" if isinstance(fault, Image.UnidentifiedImageError) else fault
        raise error(archive, member, f"cannot be decoded ({reason})") from fault
    return image
