"""A downloaded archive, as a zip file or an unpacked folder, behind one interface.

Member names are relative to the archive's root folder (`images/1.jpg`, not `root/images/1.jpg`).
Every error names the archive and the member, and states the remedy.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import tensorflow_datasets as tfds

from tfds_builders import zip_reader
from tfds_builders.hidden import is_hidden

DOWNLOAD_AGAIN = "download the archive again"


class ArchiveError(ValueError):
    """The archive is missing, damaged, or not in the layout that the builder expects."""


class Archive(Protocol):
    """Read-only access to the members of an archive."""

    location: str
    """The path of the zip file or folder, for error messages."""
    remedy: str
    """How the user can fix a missing or damaged member, for error messages."""

    def __iter__(self) -> Iterator[str]:
        """Yields the name of each member that is not hidden, sorted by path."""

    def __contains__(self, member: str) -> bool:
        """Returns whether the archive contains the member."""

    def read(self, member: str) -> bytes:
        """Returns a member's bytes; raises ArchiveError if it is missing or damaged."""


def error(archive: Archive, member: str, problem: str, remedy: str | None = None) -> ArchiveError:
    """Returns a one-line error about a member.

    Args:
      archive: the archive.
      member: the member's name, followed by the line number for a line of a text file.
      problem: the problem, as a predicate such as "is missing".
      remedy: how the user can fix it; by default the archive's own remedy.
    """
    return ArchiveError(f"{archive.location}: {member}: {problem}; {remedy or archive.remedy}")


def read_lines(archive: Archive, member: str) -> list[str]:
    """Returns the lines of a text file; raises ArchiveError if it is missing or damaged."""
    return archive.read(member).decode("utf-8-sig", "replace").splitlines()


def abbreviate(names: list[str]) -> str:
    """Returns the first twenty names as one string, for a message."""
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


class ZipArchive:
    """An archive as a zip file."""

    def __init__(self, path: Path, root: str, remedy: str = DOWNLOAD_AGAIN):
        """Opens a zip file.

        Args:
          path: the zip file.
          root: the folder in the zip file that contains all members.
          remedy: how the user can fix a missing or damaged member.

        Raises:
          ArchiveError: if the file is not a zip file, is truncated, or lacks the folder.
        """
        self.location = str(path)
        self.remedy = remedy
        self._prefix = f"{root}/"
        try:
            self._zip = zip_reader.ZipReader(path)
        except zip_reader.ZipDamagedError as damage:
            raise ArchiveError(f"{path}: {damage}; {remedy}") from damage
        if not any(name.startswith(self._prefix) for name in self._zip):
            raise ArchiveError(f"{path}: does not contain the folder {root}; {remedy}")

    def __iter__(self) -> Iterator[str]:
        """Yields the name of each member that is not hidden, sorted."""
        length = len(self._prefix)
        members = (name[length:] for name in self._zip if name.startswith(self._prefix))
        return (member for member in members if not is_hidden(member))

    def __contains__(self, member: str) -> bool:
        """Returns whether the zip file contains the member."""
        return self._prefix + member in self._zip

    def read(self, member: str) -> bytes:
        """Returns a member's bytes; raises ArchiveError if it is missing or damaged."""
        try:
            return self._zip.read(self._prefix + member)
        except KeyError:
            raise error(self, member, "is missing") from None
        except zip_reader.ZipDamagedError as damage:
            raise error(self, member, str(damage)) from damage


class FolderArchive:
    """An archive as an unpacked folder."""

    def __init__(self, path: Path, remedy: str = DOWNLOAD_AGAIN):
        """Stores the folder's path; reads nothing.

        Args:
          path: the archive's root folder.
          remedy: how the user can fix a missing or damaged member.
        """
        self.location = str(path)
        self.remedy = remedy
        self._path = path

    def __iter__(self) -> Iterator[str]:
        """Yields the name of each member that is not hidden, sorted within each folder."""
        for folder, subfolders, files in os.walk(self._path):
            subfolders.sort()  # in place: `os.walk` visits them in the list's order
            relative = Path(folder).relative_to(self._path)
            for file in sorted(files):
                member = (relative / file).as_posix()
                if not is_hidden(member):
                    yield member

    def __contains__(self, member: str) -> bool:
        """Returns whether the folder contains the member."""
        return (self._path / member).is_file()

    def read(self, member: str) -> bytes:
        """Returns a member's bytes; raises ArchiveError if it is missing."""
        try:
            return (self._path / member).read_bytes()
        except FileNotFoundError:
            raise error(self, member, "is missing") from None


def open_archive(dl_manager: tfds.download.DownloadManager, root: str) -> Archive:
    """Opens `<root>.zip` or, if there is no zip file, the folder `<root>`, in the manual directory.

    Args:
      dl_manager: the TFDS download manager, which provides the manual directory.
      root: the name of the archive's root folder, and of the zip file without `.zip`.

    Returns:
      The archive.

    Raises:
      ArchiveError: if neither exists, or the zip file is damaged.
    """
    try:
        manual_dir = Path(dl_manager.manual_dir)
    except AssertionError as missing:  # TFDS raises it if the directory is missing or empty
        raise ArchiveError(str(missing)) from missing
    if archive := find_archive(manual_dir, root):
        return archive
    raise ArchiveError(
        f"{manual_dir} contains neither {root}.zip nor the folder {root}; "
        "download the archive to it, or set --manual_dir to the archive's directory"
    )


def find_archive(folder: Path, root: str, remedy: str = DOWNLOAD_AGAIN) -> Archive | None:
    """Opens `<root>.zip` or, if there is no zip file, the folder `<root>`, in a folder.

    Args:
      folder: the folder to search.
      root: the name of the archive's root folder, and of the zip file without `.zip`.
      remedy: how the user can fix a missing or damaged member.

    Returns:
      The archive; None if neither exists.

    Raises:
      ArchiveError: if the zip file is damaged.
    """
    if (folder / f"{root}.zip").is_file():
        return ZipArchive(folder / f"{root}.zip", root, remedy)
    return FolderArchive(folder / root, remedy) if (folder / root).is_dir() else None
