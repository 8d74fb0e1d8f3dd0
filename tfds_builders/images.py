"""Reads images from an archive, with every fault turned into an error, and encodes them."""

import io
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from tfds_builders.archive import Archive, error

# Phones write MPO: a JPEG, followed by more images.
_STORED_FORMATS = ("JPEG", "MPO", "PNG")
_PICTURE_FORMATS = (*_STORED_FORMATS, "BMP", "WEBP")
# Pillow's errors for damaged files.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


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
    image = decode(archive, member, data)
    if image.format not in formats or image.mode != "RGB":
        expected = " or ".join(formats)
        raise error(archive, member, f"is {image.format} {image.mode}, not an RGB {expected}")
    return data, (image.height, image.width)


class Picture(NamedTuple):
    """A decoded image and its file's bytes."""

    data: bytes
    image: Image.Image

    @property
    def is_rotated(self) -> bool:
        """Whether viewers rotate or mirror the image, as its EXIF orientation requires."""
        return self.image.getexif().get(ExifTags.Base.Orientation, 1) != 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.height, self.image.width


def read_picture(archive: Archive, member: str) -> Picture:
    """Reads an image of any common format and mode.

    Args:
      archive: the archive.
      member: the name of the image.

    Raises:
      ArchiveError: if it is missing, truncated, or of another format.
    """
    data = archive.read(member)
    image = decode(archive, member, data)
    if image.format not in _PICTURE_FORMATS:
        expected = "JPEG, PNG, WebP or BMP"
        raise error(archive, member, f"is {image.format}", f"save it as {expected}")
    return Picture(data, image)


def encode_picture(picture: Picture) -> bytes:
    """Encodes an image so that every reader of TFDS decodes it to the same upright RGB pixels.

    Args:
      picture: the image.

    Returns:
      The file's bytes, unchanged, of an upright and opaque RGB JPEG or PNG; otherwise a PNG of the
      RGB pixels, with transparent pixels blended with white and 16 bits scaled to 8.
    """
    image = picture.image
    opaque_rgb = image.mode == "RGB" and not image.has_transparency_data
    if image.format in _STORED_FORMATS and opaque_rgb and not picture.is_rotated:
        return picture.data
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    elif image.mode.startswith("I"):  # 16 bits per pixel
        image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    return encode_png(np.asarray(image.convert("RGB")))


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
    image = decode(archive, member, data)
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


def decode(archive: Archive, member: str, data: bytes) -> Image.Image:
    """Decodes an image.

    Args:
      archive: the archive, for error messages.
      member: the name of the image, for error messages.
      data: the file's bytes.

    Raises:
      ArchiveError: if it is not an image, truncated, or larger than Pillow's limit.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except _DECODING_ERRORS as fault:
        # Pillow's text for an unknown format contains a memory address.
        reason = "not an image" if isinstance(fault, Image.UnidentifiedImageError) else fault
        raise error(archive, member, f"cannot be decoded ({reason})") from fault
    return image
