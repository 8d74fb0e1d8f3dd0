"""Converts files, Pillow images and arrays to RGB, uint8 (H, W, 3).

Only this module decodes untrusted bytes. As in most viewers, transparent pixels are blended with
white, the orientation in EXIF is applied, colours are converted to sRGB, and damaged metadata is
ignored. Of an animation or a file of several pictures the first is read.
"""

import ctypes
import io
import logging
import math
import os
import stat
import struct
import threading
import warnings
import zlib
from contextlib import nullcontext, suppress
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, _imaging

from jax_stn_icnn.photos.colour import to_srgb
from jax_stn_icnn.photos.metadata import repaired

# Raster formats that Pillow itself decodes: for others, such as EPS, it starts external programs.
# JPEG includes MPO.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# The format that the extra `heic` adds to Pillow, and the major brands of its files.
HEIF = "HEIF"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
SUFFIXES = tuple(
    ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .mpo .pbm .pgm .png .ppm .tif .tiff "
    ".webp".split()
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
        photo: a path; a Pillow image of any mode; or an array (H, W), (H, W, 3) or (H, W, 4) in the
            order red, green, blue, opacity: uint8, or floats in 0..1. (OpenCV's arrays have the
            order blue, green, red.)
        name: name of a photo without a path in error messages.

    Returns:
        Red, green and blue of sRGB, uint8 (H, W, 3); it may share memory with the input and must
        not be written to.

    Raises:
        OSError: the file cannot be opened.
        PhotoError: the photo is not an image, damaged or too large; the message names it.
    """
    if isinstance(photo, str | os.PathLike):
        return _read(photo)
    if isinstance(photo, Image.Image):
        return _decode(photo, f"{name}, a Pillow image,")
    return _from_array(photo, name)


def count_frames(path: str | os.PathLike[str]) -> int:
    """Returns the number of pictures in a file, of which `to_rgb` reads the first.

    Args:
        path: a file that `to_rgb` can read. If frames other than the first are damaged, only the
            first is counted.
    """
    with _open(path) as file:
        try:
            with _open_image(file, str(path)) as image:
                return getattr(image, "n_frames", 1)
        except _DECODING_ERRORS:
            return 1


def silence_decoders() -> None:
    """Keeps Pillow and libtiff from printing about damaged files; their errors are still raised."""
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # The symbols of libtiff are found through Pillow's library, unless that contains it.
    with suppress(AttributeError):
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _read(path: str | os.PathLike[str]) -> np.ndarray:
    with _open(path) as file:
        try:
            return _decode_file(file, str(path))
        except PhotoError:
            for content in repaired(file):
                try:
                    return _decode_file(io.BytesIO(content), str(path))
                except PhotoError:
                    continue
            raise


def _decode_file(file: BinaryIO, name: str) -> np.ndarray:
    with _open_image(file, name) as image:
        return _decode(image, name)


def _open_image(file: BinaryIO, name: str) -> Image.Image:
    """Opens an image, of which only the header is read."""
    head = file.read(12)
    file.seek(0)
    formats: tuple[str, ...] = FORMATS
    if head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS:
        _register_heif(name)
        formats = (*FORMATS, HEIF)
    try:
        return Image.open(file, formats=formats)
    except Image.UnidentifiedImageError as error:
        known = ", ".join(formats)
        raise PhotoError(f"{name} is not an image of a known format ({known})") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{name} is too large: {error}") from error
    except _DECODING_ERRORS as error:
        raise PhotoError(f"{name} is damaged: {_describe(error)}") from error


def _register_heif(name: str) -> None:
    """Adds HEIF to Pillow's formats."""
    try:
        import pillow_heif
    except ImportError as error:
        raise PhotoError(
            f"{name} is a HEIC photo, which needs the extra heic: pip install 'jax-stn-icnn[heic]'"
        ) from error
    pillow_heif.register_heif_opener()


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
    transposition = _UPRIGHT.get(_orientation(image))
    if transposition is not None:
        image = image.transpose(transposition)
    image, opacity = _split_opacity(image)
    image = to_srgb(image).convert("RGB")
    if opacity is None:
        return np.asarray(image)
    image.putalpha(opacity)
    return _blend_with_white(image)


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1..8, of an image other than TIFF, which Pillow itself rotates.

    `ImageOps.exif_transpose` also rewrites the other tags, and fails where one is malformed.
    `Image.getexif` also reads the orientation in XMP, which viewers ignore.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except _DECODING_ERRORS:
        return 1


def _split_opacity(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Returns an image of mode L, RGB or CMYK, and the opacity of its pixels, of mode L."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        # Of 16 bits, or of 32 of which 16 are used.
        gray = _from_floats(values) if image.mode == "F" else _from_16_bits(values)
        opacity = None
        if (transparent := image.info.get("transparency")) is not None:
            opacity = Image.fromarray((values != transparent) * np.uint8(255))
        return _with_profile(Image.fromarray(gray), image), opacity
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA")
        return _with_profile(image.convert(image.mode[:-1]), image), image.getchannel("A")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB"), None


def _with_profile(image: Image.Image, original: Image.Image) -> Image.Image:
    """Adds the colour profile of the original to an image made from it."""
    image.info["icc_profile"] = original.info.get("icc_profile")
    return image


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
