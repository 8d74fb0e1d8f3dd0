"""A downloaded archive, zip or unpacked folder, behind one interface.

Members are named relative to the archive's root folder (`images/1.jpg`, not `root/images/1.jpg`).
Every error names the archive and the member, and says what to do.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import tensorflow_datasets as tfds

from tfds_builders import zip_reader

DOWNLOAD_AGAIN = "download the archive again"


class ArchiveError(ValueError):
    """The archive is missing, damaged, or not what the builder expects."""


class Archive(Protocol):
    """Read-only access to the members of an archive."""

    location: str
    remedy: str
    """What the user can do about a member that is missing or damaged."""

    def __iter__(self) -> Iterator[str]:
        """Yields the name of each member, in the order of their paths."""

    def __contains__(self, member: str) -> bool:
        """Whether there is such a member."""

    def read(self, member: str) -> bytes:
        """Returns a member's bytes; raises ArchiveError if absent or damaged."""


def error(archive: Archive, member: str, problem: str, remedy: str | None = None) -> ArchiveError:
    """Returns the one-line error about a member.

    Args:
      archive: the archive.
      member: the member's name, with the line number where it is a line of a list.
      problem: what is wrong with it.
      remedy: what the user can do; by default the archive's own.
    """
    return ArchiveError(f"{archive.location}: {member}: {problem}; {remedy or archive.remedy}")


def some_of(names: list[str]) -> str:
    """Returns the first twenty names, for a message."""
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


class ZipArchive:
    """The archive as downloaded."""

    def __init__(self, path: Path, root: str, remedy: str = DOWNLOAD_AGAIN):
        """Opens a zip file.

        Args:
          path: the zip file.
          root: the folder inside it that holds everything.
          remedy: what the user can do about a member that is missing or damaged.

        Raises:
          ArchiveError: if it is not a whole zip file.
        """
        self.location = str(path)
        self.remedy = remedy
        self._prefix = f"{root}/"
        try:
            self._zip = zip_reader.ZipReader(path)
        except zip_reader.ZipDamagedError as damage:
            raise ArchiveError(f"{path}: {damage}; {remedy}") from damage

    def __iter__(self) -> Iterator[str]:
        """Yields the name of each member."""
        length = len(self._prefix)
        return (name[length:] for name in self._zip if name.startswith(self._prefix))

    def __contains__(self, member: str) -> bool:
        """Whether there is such a member."""
        return self._prefix + member in self._zip

    def read(self, member: str) -> bytes:
        """Returns a member's bytes; raises ArchiveError if absent or damaged."""
        try:
            return self._zip.read(self._prefix + member)
        except KeyError:
            raise error(self, member, "is missing") from None
        except zip_reader.ZipDamagedError as damage:
            raise error(self, member, str(damage)) from damage


class FolderArchive:
    """The folder that the archive unpacks to."""

    def __init__(self, path: Path, remedy: str = DOWNLOAD_AGAIN):
        """Names the folder; nothing is read yet.

        Args:
          path: the archive's root folder.
          remedy: what the user can do about a member that is missing or damaged.
        """
        self.location = str(path)
        self.remedy = remedy
        self._path = path

    def __iter__(self) -> Iterator[str]:
        """Yields the name of each member."""
        for folder, subfolders, files in os.walk(self._path):
            subfolders.sort()  # in place: `os.walk` follows the list
            relative = Path(folder).relative_to(self._path)
            for file in sorted(files):
                yield (relative / file).as_posix()

    def __contains__(self, member: str) -> bool:
        """Whether there is such a member."""
        return (self._path / member).is_file()

    def read(self, member: str) -> bytes:
        """Returns a member's bytes; raises ArchiveError if absent."""
        try:
            return (self._path / member).read_bytes()
        except FileNotFoundError:
            raise error(self, member, "is missing") from None


def open_archive(dl_manager: tfds.download.DownloadManager, root: str) -> Archive:
    """Opens `<root>.zip` or, where there is no zip, the folder `<root>`, in the manual directory.

    Args:
      dl_manager: TFDS's download manager, which knows the manual directory.
      root: the name of the archive's root folder, and of the zip file without `.zip`.

    Returns:
      The archive.

    Raises:
      ArchiveError: if neither is there, or the zip is not whole.
    """
    try:
        manual_dir = Path(dl_manager.manual_dir)
    except AssertionError as missing:  # TFDS's way to say that the directory is absent or empty
        raise ArchiveError(str(missing)) from missing
    if archive := find_archive(manual_dir, root):
        return archive
    raise ArchiveError(
        f"{manual_dir} holds neither {root}.zip nor the folder {root}; "
        "download the archive there, or name its directory with --manual_dir"
    )


def find_archive(folder: Path, root: str, remedy: str = DOWNLOAD_AGAIN) -> Archive | None:
    """Opens `<root>.zip` or, where there is no zip, the folder `<root>`, in a folder.

    Args:
      folder: where to look.
      root: as for `open_archive`.
      remedy: what the user can do about a member that is missing or damaged.

    Returns:
      The archive; None where neither is there.

    Raises:
      ArchiveError: if the zip is not whole.
    """
    if (folder / f"{root}.zip").is_file():
        return ZipArchive(folder / f"{root}.zip", root, remedy)
    return FolderArchive(folder / root, remedy) if (folder / root).is_dir() else None
