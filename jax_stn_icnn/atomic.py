"""Files that are complete or absent: written under another name, and renamed at the end."""

import errno
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

# Numbers of the errors after which nothing more can be written to a disk.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file under a temporary name and renames it when it is complete.

    Several processes may write the same file. An error removes the temporary file.

    Args:
        path: The file, which is replaced if it exists. Its folder must exist.
        write: Writes the content into the open binary file.

    Raises:
        OSError: The file cannot be written; the error names it.
    """
    temporary = temporary_path(path)
    try:
        try:
            with open(temporary, "wb") as file:
                write(file)
            os.replace(temporary, path)
        finally:
            if temporary.exists():  # On a read-only disk, unlinking any name is an error.
                temporary.unlink()
    except OSError as error:
        # An error of a full disk names no file.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, as `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


def remove_partial_files(folder: Path) -> None:
    """Removes the temporary files of processes that were killed on this machine, at any depth."""
    pattern = re.compile(rf"\..*\.{_host()}-(\d+)\.partial(\.\w+)?")
    for path in folder.rglob(".*.partial*"):
        match = pattern.fullmatch(path.name)
        if match and not _is_running(int(match[1])):
            path.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Returns the name under which this process writes a file, of the same suffix."""
    return path.with_name(f".{path.stem}.{_host()}-{os.getpid()}.partial{path.suffix}")


def is_disk_error(error: Exception) -> bool:
    """Whether an error tells that a disk is full, read-only or broken."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def _host() -> str:
    return re.sub(r"\W", "_", socket.gethostname())


def _is_running(pid: int) -> bool:
    """Returns whether a process of this machine runs."""
    if os.name != "posix":
        return True  # Elsewhere `os.kill` ends the process.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
