"""Removes metadata from JPEG, PNG and WebP files, so that damaged metadata costs no picture.

Pillow refuses some files of which only the metadata is damaged: by a wrong checksum or length, or a
field that ends early. Viewers skip such blocks. The pixels are left as they are, so a file of which
they are damaged is still refused.
"""

import binascii
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

# Blocks of a file are (name, first byte, end); the name is None for bytes that form no valid block.
Blocks = Iterator[tuple[bytes | None, int, int]]

_SCAN, _ADOBE, _COMMENT, _FILL = b"\xda", b"\xee", b"\xfe", b"\xff"  # markers of JPEG
_MAX_SEGMENT, _MAX_SEGMENTS = 65_538, 500  # bytes of one; number before the pixels
_PNG_HEADER = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_WEBP_PIXELS = (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
# Bits in byte 8 of VP8X.
_WEBP_ICCP, _WEBP_EXIF, _WEBP_XMP = 0x20, 0x08, 0x04
# Where the next block may start.
_JPEG_NEXT = re.compile(rb"\xff[\xc0-\xcf\xda-\xfe]")
_PNG_NEXT = re.compile(rb"....(?=PLTE|tRNS|IDAT|IEND)", re.DOTALL)
_WEBP_NEXT = re.compile(rb"ALPH|ANIM|ANMF|VP8 |VP8L")


def repaired(opened: BinaryIO) -> Iterator[bytes]:
    """Yields versions of a file without damaged metadata.

    Args:
        opened: a file of any format.

    Yields:
        The file with the EXIF block and the colour profile as its only metadata, then without
        these. For formats other than JPEG, PNG and WebP nothing.
    """
    opened.seek(0)
    head = opened.read(12)
    if head.startswith(b"\xff\xd8\xff"):
        rebuild = _rebuild_jpeg
    elif head.startswith(_PNG_HEADER):
        rebuild = _rebuild_png
    elif head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        rebuild = _rebuild_webp
    else:
        return
    file = head + opened.read()
    yield rebuild(file, True)
    yield rebuild(file, False)


def _rebuild_jpeg(file: bytes, keep_exif_and_profile: bool) -> bytes:
    kept = [file[:2]]
    for marker, start, end in _jpeg_segments(file):
        if marker is None:
            continue
        content = file[start + 4 : end]
        if marker == _ADOBE:  # defines the colour space of the pixels
            is_kept = len(content) >= 12
        elif b"\xe0" <= marker <= b"\xef" or marker == _COMMENT:
            is_kept = keep_exif_and_profile and content.startswith((b"Exif\0\0", b"ICC_PROFILE\0"))
        else:
            is_kept = True
        if is_kept:
            kept.append(file[start:end])
    return b"".join(kept)


def _jpeg_segments(file: bytes) -> Blocks:
    start = 2
    while start < len(file):
        marker: bytes | None = file[start + 1 : start + 2]
        end = _segment_end(file, start)
        if marker == _FILL:
            start += 1
            continue
        if marker == _SCAN:  # The pixels follow, to the end of the file.
            yield marker, start, len(file)
            return
        if not (_is_segment(file, start) and _is_segment(file, end)):
            marker, end = None, _next_segment(file, start)
        yield marker, start, end
        start = end


def _next_segment(file: bytes, start: int) -> int:
    """Returns where the segment after a damaged one starts; the end of the file if none does.

    EXIF may contain a thumbnail, which has segments, too. Those of the photo have more pixels.
    """
    places = _JPEG_NEXT.finditer(file, start + 2, start + 2 + _MAX_SEGMENT)
    areas = {place.start(): _area(file, place.start()) for place in places}
    best = max(areas, key=areas.__getitem__, default=len(file))
    return best if areas.get(best) else len(file)


def _area(file: bytes, start: int) -> int:
    """Returns the number of pixels, as the segments from here define it; 0 if one is damaged."""
    area = 0
    for _ in range(_MAX_SEGMENTS):
        if not _is_segment(file, start):
            return 0
        marker = file[start + 1]
        if marker == _SCAN[0]:
            return area
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame header
            height, width = struct.unpack(">HH", file[start + 5 : start + 9])
            area = height * width
        start = start + 1 if marker == _FILL[0] else _segment_end(file, start)
    return 0


def _is_segment(file: bytes, start: int) -> bool:
    """Whether a segment starts here, and is followed by another one or by pixels."""
    if not re.match(rb"\xff[\xc0-\xcf\xda-\xff]", file[start : start + 2]):
        return False
    if file[start + 1 : start + 2] in (_SCAN, _FILL):
        return True
    end = _segment_end(file, start)
    return file[end : end + 1] == b"\xff"


def _segment_end(file: bytes, start: int) -> int:
    return start + 2 + int.from_bytes(file[start + 2 : start + 4], "big")


def _rebuild_png(file: bytes, keep_exif_and_profile: bool) -> bytes:
    kept = [_PNG_HEADER]
    for name, start, end in _png_chunks(file):
        checksum = binascii.crc32(file[start + 4 : end - 4]).to_bytes(4, "big")
        is_intact = name in (b"eXIf", b"iCCP") and checksum == file[end - 4 : end]
        if name in _PNG_PIXELS or (is_intact and keep_exif_and_profile):
            kept.append(file[start:end])
    return b"".join(kept)


def _png_chunks(file: bytes) -> Blocks:
    start = len(_PNG_HEADER)
    while start < len(file):
        name: bytes | None = file[start + 4 : start + 8]
        end = start + 12 + int.from_bytes(file[start : start + 4], "big")
        if name not in _PNG_PIXELS and not re.match(rb"[A-Za-z]{4}", file[end + 4 : end + 8]):
            found = _PNG_NEXT.search(file, start + 8)
            name, end = None, found.start() if found else len(file)
        yield name, start, end
        start = end


def _rebuild_webp(file: bytes, keep_exif_and_profile: bool) -> bytes:
    names = (*_WEBP_PIXELS, b"ICCP", b"EXIF") if keep_exif_and_profile else _WEBP_PIXELS
    kept = [(name, file[start:end]) for name, start, end in _webp_chunks(file) if name in names]
    flags = {b"ICCP": _WEBP_ICCP, b"EXIF": _WEBP_EXIF}
    absent = _WEBP_XMP | sum(flag for name, flag in flags.items() if name not in dict(kept))
    body = b"WEBP"
    for name, chunk in kept:
        if name == b"VP8X" and len(chunk) > 8:
            chunk = chunk[:8] + bytes([chunk[8] & ~absent]) + chunk[9:]
        body += chunk + b"\0" * (len(chunk) % 2)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _webp_chunks(file: bytes) -> Blocks:
    start = 12
    while start < len(file):
        name: bytes | None = file[start : start + 4]
        length = int.from_bytes(file[start + 4 : start + 8], "little")
        end = start + 8 + length + length % 2
        is_last = end - length % 2 <= len(file) <= end
        if name not in _WEBP_PIXELS and not is_last and not _is_webp_name(file[end : end + 4]):
            found = _WEBP_NEXT.search(file, start + 8)
            name, end = None, found.start() if found else len(file)
        yield name, start, end
        start = end


def _is_webp_name(text: bytes) -> bool:
    return re.fullmatch(rb"[A-Z0-9]{3}[A-Z0-9 ]", text) is not None
