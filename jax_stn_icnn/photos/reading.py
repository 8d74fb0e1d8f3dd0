"""Pictures of any kind as RGB: files, Pillow images and arrays, each made uint8 (H, W, 3).

The one place that reads bytes of unknown origin. Transparency is laid over white, as most viewers
show it; the camera's rotation (EXIF) is applied; of several frames the first is taken.
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

# Raster formats that Pillow decodes by itself: others (EPS among them) would start programs.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = tuple(
    ".bmp .gif .jpg .jpeg .jp2 .png .pbm .pgm .ppm .tif .tiff .webp".split()
)  # by which a folder's pictures are known; a file named by itself may have any
MAX_SIDE = 32_766  # pixels: OpenCV, which resamples the picture, takes no more
# Photos of more pixels are decoded one at a time: a transparent one of the largest size takes over
# a gigabyte until it is RGB.
LARGE = 12_000_000
# What EXIF says of how a picture is stored -> what shows it upright.
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

# Decoders are written for whole files. On hostile bytes Pillow's raise whatever their parsing
# stumbles over, so here, and only here, so many kinds of errors become the one that is documented.
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
    """Something given as a picture is none, or is one that cannot be read."""


def to_rgb(photo: Any, name: str = "image") -> np.ndarray:
    """Makes RGB of a picture, whatever it comes as.

    Args:
        photo: a path; a Pillow image of any mode; or an array of shape (H, W), (H, W, 3) or (H, W,
            4), the fourth channel being opacity: uint8, or floats in 0..1.
        name: what messages call a picture without a path.

    Returns:
        uint8 (H, W, 3), not to be written to.

    Raises:
        FileNotFoundError: there is no such file, or the like (OSError) where it cannot be opened.
        PhotoError: it is no picture, damaged, or too large; the message says which picture.
    """
    if isinstance(photo, str | os.PathLike):
        return _read(photo)
    if isinstance(photo, Image.Image):
        return _decode(photo, f"{name}, a Pillow image,")
    return _from_array(photo, name)


def _read(path: str | os.PathLike[str]) -> np.ndarray:
    with _open(path) as file:
        try:
            # Reads the header only.
            image = Image.open(file, formats=FORMATS)
        except Image.UnidentifiedImageError as error:
            known = ", ".join(FORMATS)
            raise PhotoError(f"{path} is not a picture of a known format ({known})") from error
        except Image.DecompressionBombError as error:
            raise PhotoError(f"{path} is too large: {error}") from error
        except _DECODING_ERRORS as error:
            raise PhotoError(f"{path} is damaged: {_say(error)}") from error
        with image:
            return _decode(image, str(path))


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file; a FIFO, say, would be waited for."""
    # Without waiting, should it have become one since it was found; that changes nothing for files.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder, but must be a picture")
    file = open(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise PhotoError(f"{path} is no regular file, but must be a picture")
    return file


def _decode(image: Image.Image, name: str) -> np.ndarray:
    _check_size(image.size, name)
    try:
        with _ONE_AT_A_TIME if math.prod(image.size) > LARGE else nullcontext():
            return _upright_rgb(image)
    except _DECODING_ERRORS as error:
        raise PhotoError(f"{name} cannot be decoded: {_say(error)}") from error


def _upright_rgb(image: Image.Image) -> np.ndarray:
    image.load()
    # Not by `ImageOps.exif_transpose`: it writes the other tags anew, and fails where one is odd.
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turn is not None:
        image = image.transpose(turn)
    if image.has_transparency_data:
        return _over_white(image)
    if image.mode.startswith("I"):  # 16 bits, or 32 of which 16 are used
        return _grey(_sixteen_bits(np.asarray(image)))
    if image.mode == "F":
        return _grey(_eight_bits(np.asarray(image)))
    return np.asarray(image.convert("RGB"))


def _over_white(image: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


def _from_array(photo: Any, name: str) -> np.ndarray:
    if not hasattr(photo, "__array__"):
        raise PhotoError(
            f"{name} is a {type(photo).__name__}, but must be a path, a Pillow image or an array"
        )
    array = np.asarray(photo)
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        raise PhotoError(
            f"{name} has shape {array.shape}, but must have shape (H, W), (H, W, 3) or (H, W, 4)"
        )
    _check_size((array.shape[1], array.shape[0]), name)
    if np.issubdtype(array.dtype, np.floating):
        try:
            array = _eight_bits(array)
        except ValueError as error:
            raise PhotoError(f"{name} {error}") from error
    elif array.dtype != np.uint8:
        raise PhotoError(f"{name} has type {array.dtype}, but must be uint8, or floats in 0..1")
    if array.ndim == 2:
        return _grey(array)
    if array.shape[2] == 4:
        return _over_white(Image.fromarray(np.ascontiguousarray(array)))
    return np.ascontiguousarray(array)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    lowest, highest = values.min(), values.max()  # NaN where there is one
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(f"holds floats {lowest}..{highest}, but they must lie in 0..1")
    return np.round(np.asarray(values, np.float32) * 255).astype(np.uint8)


def _sixteen_bits(values: np.ndarray) -> np.ndarray:
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError(f"it holds {values.min()}..{values.max()}, more than 16 bits of grey")
    return np.round(values / np.float32(257)).astype(np.uint8)


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(size) < 1:
        raise PhotoError(f"{name} is empty: {width} x {height} pixels")
    # Pillow itself only warns at its limit, and refuses at the double.
    limit = Image.MAX_IMAGE_PIXELS
    if max(size) > MAX_SIDE or (limit is not None and width * height > limit):
        raise PhotoError(
            f"{name} is too large: {width} x {height} pixels, but the limit is "
            f"{MAX_SIDE} a side and PIL.Image.MAX_IMAGE_PIXELS = {limit} in all"
        )


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
