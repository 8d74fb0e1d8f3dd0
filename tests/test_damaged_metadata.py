"""Pictures with intact pixels and one damaged block of metadata are read as if it were absent."""

import binascii
import io
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from jax_stn_icnn.photos.reading import to_rgb

HEIGHT, WIDTH = 24, 37
COUNT = 100  # damaged files of each format


def picture():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([5 * x, 8 * y, 3 * (x + y)], axis=-1).astype(np.uint8))


def thumbnail():
    file = io.BytesIO()
    picture().resize((16, 16)).save(file, "JPEG")
    return file.getvalue()


def exif():
    found = Image.Exif()
    found[ExifTags.Base.Make] = "A camera"
    found[ExifTags.Base.XResolution] = 72.0
    found[ExifTags.Base.DateTime] = "2026:11:29 12:00:00"
    return found.tobytes().removeprefix(b"Exif\0\0")


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF/></x:xmpmeta>" * 5
PHOTOSHOP = b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x10" + b"\0\x48\0\0\0\1\0\1" * 2

JPEG_BLOCKS = (
    (0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
    (0xE1, b"Exif\0\0" + exif()),
    (0xE1, b"Exif\0\0" + exif() + thumbnail()),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
    (0xE2, b"ICC_PROFILE\0\1\1" + PROFILE),
    (0xE2, b"MPF\0" + exif()),
    (0xED, PHOTOSHOP),
    (0xFE, b"a comment"),
)
PNG_BLOCKS = (
    (b"eXIf", exif()),
    (b"iCCP", b"sRGB\0\0" + zlib.compress(PROFILE)),
    (b"gAMA", (45455).to_bytes(4, "big")),
    (b"cHRM", bytes(32)),
    (b"pHYs", bytes(9)),
    (b"sRGB", b"\0"),
    (b"tEXt", b"Title\0A face"),
    (b"zTXt", b"Title\0\0" + zlib.compress(b"A face")),
    (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    (b"tIME", bytes(7)),
)
WEBP_BLOCKS = ((b"ICCP", PROFILE), (b"EXIF", exif()), (b"XMP ", XMP))


def damaged(content, rng):
    """Returns content with bytes replaced, removed, or zero; possibly none."""
    how = rng.integers(4)
    if how == 0:
        changed = bytearray(content)
        for _ in range(rng.integers(1, 8)):
            changed[rng.integers(len(changed))] = rng.integers(256)
        return bytes(changed)
    if how == 1:
        return content[: rng.integers(len(content))]
    if how == 2:
        start = rng.integers(len(content))
        return content[:start] + rng.bytes(len(content) - start)
    return bytes(len(content))


def wrong(length, rng, limit):
    """Returns the length itself, or in one of three cases another one."""
    return length if rng.integers(3) else int(rng.integers(limit))


def encoded(kind):
    file = io.BytesIO()
    picture().save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def damaged_jpeg(rng):
    marker, content = JPEG_BLOCKS[rng.integers(len(JPEG_BLOCKS))]
    content, plain = damaged(content, rng), encoded("JPEG")
    length = wrong(len(content) + 2, rng, 2**16).to_bytes(2, "big")
    return marker == 0xE2, plain[:2] + bytes([0xFF, marker]) + length + content + plain[2:]


def damaged_png(rng):
    name, content = PNG_BLOCKS[rng.integers(len(PNG_BLOCKS))]
    content, plain = damaged(content, rng), encoded("PNG")
    checksum = binascii.crc32(name + content) + int(rng.integers(2))
    chunk = wrong(len(content), rng, 2**31).to_bytes(4, "big") + name + content
    place = len(plain) - 12 if rng.integers(2) else 33  # before IEND, or after IHDR
    chunk += (checksum % 2**32).to_bytes(4, "big")
    return name == b"iCCP", plain[:place] + chunk + plain[place:]


def damaged_webp(rng):
    name, content = WEBP_BLOCKS[rng.integers(len(WEBP_BLOCKS))]
    content, pixels = damaged(content, rng), encoded("WEBP")[12:]
    chunk = name + wrong(len(content), rng, 2**16).to_bytes(4, "little") + content
    chunk += b"\0" * (len(content) % 2)
    flags = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}[name]
    size = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    header = b"VP8X" + (10).to_bytes(4, "little") + bytes([flags, 0, 0, 0]) + size
    body = b"WEBP" + header + (chunk + pixels if name == b"ICCP" else pixels + chunk)
    return name == b"ICCP", b"RIFF" + len(body).to_bytes(4, "little") + body


@pytest.mark.filterwarnings("ignore")  # of Pillow, about damaged metadata
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_pixels_are_read(tmp_path, kind):
    make = {"JPEG": damaged_jpeg, "PNG": damaged_png, "WEBP": damaged_webp}[kind]
    expected = np.asarray(Image.open(io.BytesIO(encoded(kind))))
    rng = np.random.default_rng(43)
    for number in range(COUNT):
        path = tmp_path / f"{number}"
        is_profile, data = make(rng)
        path.write_bytes(data)
        # A damaged profile that is still one of colours may change these a little.
        limit = 10 if is_profile else 0
        np.testing.assert_allclose(to_rgb(path), expected, rtol=0, atol=limit, err_msg=str(number))
