"""Random access to the members of a large zip file, with a small index.

`zipfile.ZipFile` stores about 600 bytes of Python objects per member: 250 MB for the 400,000
members of CelebAMask-HQ. This reader stores one numpy row per member instead (its name and 30
bytes). Format: PKWARE's APPNOTE.TXT, sections 4.3.7 (local header) to 4.3.16 (end record).
"""

import bisect
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Iterator

import numpy as np

_END = struct.Struct("<4s4H2LH")
_END_OFFSET_64 = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP64_EXTRA = 0x0001
_SEE_ZIP64 = 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8
_MAX_SIZE = 2**29  # bytes of a member, which is read as a whole
_ENTRY = np.dtype(
    [("offset", "<u8"), ("packed", "<u8"), ("size", "<u8"), ("crc", "<u4"), ("method", "<u2")]
)


class ZipDamagedError(Exception):
    """The file is not a zip file, or a part of it cannot be read as it was written."""


class ZipReader:
    """The members of one zip file: stored and deflated members, zip64 included."""

    def __init__(self, path: str | os.PathLike[str]):
        """Opens the file and reads its central directory.

        Args:
          path: the zip file.

        Raises:
          ZipDamagedError: if it is not a zip file, or is truncated.
        """
        self._file = _File(path)
        directory = _read_directory(self._file)
        width = max((len(name) for name, _ in _entries(directory)), default=1)
        table = np.fromiter(_entries(directory), np.dtype([("name", f"S{width}"), ("at", _ENTRY)]))
        table = table[np.argsort(table["name"], kind="stable")]
        # Two contiguous arrays: bisect reads the names without touching the entries.
        self._names = np.ascontiguousarray(table["name"])
        self._at = np.ascontiguousarray(table["at"])

    def __iter__(self) -> Iterator[str]:
        """Yields the name of each member, sorted; folders are left out."""
        return (name.decode("utf-8", "replace") for name in self._names)

    def __contains__(self, name: str) -> bool:
        """Returns whether there is a member of this name."""
        return self._find(name) is not None

    def read(self, name: str) -> bytes:
        """Returns the content of a member, after checking its CRC-32.

        Args:
          name: the member's full name.

        Raises:
          KeyError: if there is no such member.
          ZipDamagedError: if the content cannot be read as it was written.
        """
        entry = self._find(name)
        if entry is None:
            raise KeyError(name)
        offset = int(entry["offset"])
        local = self._file.read(offset, _LOCAL.size)
        if not local.startswith(b"PK\x03\x04"):
            raise ZipDamagedError("is not at the offset that the central directory gives")
        *_, name_length, extra_length = _LOCAL.unpack(local)
        offset += _LOCAL.size + name_length + extra_length
        size = int(entry["size"])
        if size > _MAX_SIZE:
            raise ZipDamagedError(f"has {size} bytes, but may have {_MAX_SIZE}")
        data = self._file.read(offset, int(entry["packed"]))
        if entry["method"] == _DEFLATED:
            try:
                # No more than one byte too many, whatever the compressed data contains.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            except zlib.error as error:
                raise ZipDamagedError(f"has damaged compressed data ({error})") from error
        elif entry["method"] != _STORED:
            raise ZipDamagedError(f"has the unsupported compression method {entry['method']}")
        if len(data) != size or zlib.crc32(data) != entry["crc"]:
            raise ZipDamagedError("does not match its CRC-32 checksum")
        return data

    def _find(self, name: str) -> np.void | None:
        key = name.encode()
        # Of several members of one name the last one counts, as in every zip tool.
        row = bisect.bisect_right(self._names, key) - 1
        return self._at[row] if row >= 0 and self._names[row] == key else None


class _File:
    """A file that several threads may read; closed when it is garbage-collected."""

    def __init__(self, path: str | os.PathLike[str]):
        self._file = open(path, "rb")
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()  # `os.pread` needs none, but does not exist on Windows
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Returns `size` bytes; checks damaged numbers before it allocates memory."""
        if offset + size > self.size:
            raise ZipDamagedError("is truncated, or has a damaged central directory")
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


def _read_directory(file: _File) -> bytes:
    """Returns the bytes of the central directory, which precedes the end record."""
    if file.size < 2 or file.read(0, 2) != b"PK":
        raise ZipDamagedError("is not a zip file")
    # A comment of up to 65,535 bytes may follow the end record.
    tail_start = max(0, file.size - _END.size - 0xFFFF)
    tail = file.read(tail_start, file.size - tail_start)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < _END.size:
        raise ZipDamagedError("is truncated: the central directory at its end is missing")
    *_, size, start, _ = _END.unpack_from(tail, end)
    locator = end - _END_OFFSET_64.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        _, _, end_64, _ = _END_OFFSET_64.unpack_from(tail, locator)
        *_, size, start = _END_64.unpack(file.read(end_64, _END_64.size))
    return file.read(start, size)


def _entries(directory: bytes) -> Iterator[tuple[bytes, tuple[int, int, int, int, int]]]:
    """Yields (name, (offset, packed size, size, crc, method)) for each member except folders."""
    at = 0
    while at < len(directory):
        if directory[at : at + 4] != b"PK\x01\x02" or len(directory) - at < _CENTRAL.size:
            raise ZipDamagedError("has a damaged central directory")
        fields = _CENTRAL.unpack_from(directory, at)
        flags, method = fields[3:5]
        crc, packed, size, name_length, extra_length, comment_length = fields[7:13]
        offset = fields[16]
        at += _CENTRAL.size
        name = directory[at : at + name_length]
        at += name_length
        extra = directory[at : at + extra_length]
        at += extra_length + comment_length
        if flags & 1:
            raise ZipDamagedError(f"has an encrypted member, {name.decode('utf-8', 'replace')}")
        if _SEE_ZIP64 in (size, packed, offset):
            size, packed, offset = _zip64(extra, size, packed, offset)
        if not name.endswith(b"/"):
            yield name, (offset, packed, size, crc, method)


def _zip64(extra: bytes, *fields: int) -> list[int]:
    """Replaces the fields that did not fit 32 bits by their values in the zip64 extra field."""
    wanted = fields.count(_SEE_ZIP64)
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        end = at + 4 + length
        if kind == _ZIP64_EXTRA and length >= 8 * wanted and end <= len(extra):
            wide = iter(struct.unpack_from(f"<{wanted}Q", extra, at + 4))
            return [next(wide) if field == _SEE_ZIP64 else field for field in fields]
        at = end
    raise ZipDamagedError("has a member without its zip64 sizes")
