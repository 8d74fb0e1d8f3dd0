"""Converts files, Pillow images and arrays to RGB, uint8 (H, W, 3).

Only this module decodes untrusted bytes. Transparent pixels are blended with white, as most viewers
do; the rotation in EXIF is applied; of an animation the first frame is used.
"""

import math
import os
import stat
import struct
import threading
import zlib
from contextlib import nullcontext
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image

# Raster formats that Pillow itself decodes: for others, such as EPS, it starts external programs.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = tuple(
    ".bmp .gif .jpg .jpeg .jp2 .png .pbm .pgm .ppm .tif .tiff .webp".split()
)  # of the images in a folder; a file that is named itself may have any suffix
MAX_SIDE = 32_766  # pixels: the limit of OpenCV, which resamples the image
# Photos of more pixels are decoded one at a time: converting a transparent one of the largest size
# takes more than a gigabyte.
LARGE = 12_000_000
# EXIF orientation -> the transposition that makes the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ONE_AT_A_TIME = threading.Lock()

# On damaged or hostile bytes Pillow's decoders raise exceptions of many types. Only here they are
# converted to the documented one.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class PhotoError(ValueError):
    """Raised for a photo that is not an image or cannot be decoded."""


def to_rgb(photo: Any, name: str = "image") -> np.ndarray:
    """Converts a photo to RGB.

    Args:
        photo: a path; a Pillow image of any mode; or an array (H, W), (H, W, 3) or (H, W, 4), the
            fourth channel being opacity: uint8, or floats in 0..1.
        name: name of a photo without a path in error messages.

    Returns:
        uint8 (H, W, 3); it may share memory with the input and must not be written to.

    Raises:
        OSError: the file cannot be opened.
        PhotoError: the photo is not an image, damaged or too large; the message names it.
    """
    if isinstance(photo, str | os.PathLike):
        return _read(photo)
    if isinstance(photo, Image.Image):
        return _decode(photo, f"{name}, a Pillow image,")
    return _from_array(photo, name)


def _read(path: str | os.PathLike[str]) -> np.ndarray:
    with _open(path) as file:
        try:
            # Only reads the header.
            image = Image.open(file, formats=FORMATS)
        except Image.UnidentifiedImageError as error:
            known = ", ".join(FORMATS)
            raise PhotoError(f"{path} is not an image of a known format ({known})") from error
        except Image.DecompressionBombError as error:
            raise PhotoError(f"{path} is too large: {error}") from error
        except _DECODING_ERRORS as error:
            raise PhotoError(f"{path} is damaged: {_describe(error)}") from error
        with image:
            return _decode(image, str(path))


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file."""
    # O_NONBLOCK, which has no effect on files, so that opening a FIFO does not wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder, but must be an image")
    file = open(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise PhotoError(f"{path} is not a regular file, but must be an image")
    return file


def _decode(image: Image.Image, name: str) -> np.ndarray:
    _check_size(image.size, name)
    try:
        with _ONE_AT_A_TIME if math.prod(image.size) > LARGE else nullcontext():
            return _upright_rgb(image)
    except _DECODING_ERRORS as error:
        raise PhotoError(f"{name} cannot be decoded: {_describe(error)}") from error


def _upright_rgb(image: Image.Image) -> np.ndarray:
    image.load()
    # `ImageOps.exif_transpose` also rewrites the other tags, and fails where one is malformed.
    transposition = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if transposition is not None:
        image = image.transpose(transposition)
    if image.has_transparency_data:
        return _blend_with_white(image)
    if image.mode.startswith("I"):  # 16 bits, or 32 of which 16 are used
        return _gray_to_rgb(_from_16_bits(np.asarray(image)))
    if image.mode == "F":
        return _gray_to_rgb(_from_floats(np.asarray(image)))
    return np.asarray(image.convert("RGB"))


def _blend_with_white(image: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


def _from_array(photo: Any, name: str) -> np.ndarray:
    if not hasattr(photo, "__array__"):
        raise PhotoError(
            f"{name} is of type {type(photo).__name__}, but must be a path, a Pillow image or an "
            "array"
        )
    array = np.asarray(photo)
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        raise PhotoError(
            f"{name} has shape {array.shape}, but must have shape (H, W), (H, W, 3) or (H, W, 4)"
        )
    _check_size((array.shape[1], array.shape[0]), name)
    if np.issubdtype(array.dtype, np.floating):
        try:
            array = _from_floats(array)
        except ValueError as error:
            raise PhotoError(f"{name} {error}") from error
    elif array.dtype != np.uint8:
        raise PhotoError(f"{name} has dtype {array.dtype}, but must be uint8, or floats in 0..1")
    if array.ndim == 2:
        return _gray_to_rgb(array)
    if array.shape[2] == 4:
        return _blend_with_white(Image.fromarray(np.ascontiguousarray(array)))
    return np.ascontiguousarray(array)


def _from_floats(values: np.ndarray) -> np.ndarray:
    lowest, highest = values.min(), values.max()  # NaN if any value is
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(f"contains floats {lowest}..{highest}, but must contain floats in 0..1")
    return np.round(np.asarray(values, np.float32) * 255).astype(np.uint8)


def _from_16_bits(values: np.ndarray) -> np.ndarray:
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError(
            f"it contains {values.min()}..{values.max()}, more than 16 bits of grayscale"
        )
    return np.round(values / np.float32(257)).astype(np.uint8)


def _gray_to_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(size) < 1:
        raise PhotoError(f"{name} is empty: {width} x {height} pixels")
    # Pillow itself only warns above its limit, and raises above twice the limit.
    limit = Image.MAX_IMAGE_PIXELS
    if max(size) > MAX_SIDE or (limit is not None and width * height > limit):
        raise PhotoError(
            f"{name} is too large: {width} x {height} pixels, but the limit is "
            f"{MAX_SIDE} a side and PIL.Image.MAX_IMAGE_PIXELS = {limit} in total"
        )


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
