"""Files that are complete or absent: written under another name, and renamed at the end."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_SUFFIX = ".partial"


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file under a temporary name and renames it when it is complete.

    The temporary name contains the process, so that several processes may write the same file. An
    error removes the temporary file.

    Args:
        path: The file, which is replaced if it exists. Its folder must exist.
        write: Writes the content into the open binary file.

    Raises:
        OSError: The file cannot be written; the error names it.
    """
    temporary = path.with_name(f".{path.name}.{_host()}-{os.getpid()}{_SUFFIX}")
    try:
        with open(temporary, "wb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        # An error of a full disk names no file.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, as `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


def remove_partial_files(folder: Path) -> None:
    """Removes the temporary files of processes that were killed on this machine, at any depth."""
    pattern = re.compile(rf"\..*\.{re.escape(_host())}-(\d+){re.escape(_SUFFIX)}")
    for path in folder.rglob(f".*{_SUFFIX}"):
        match = pattern.fullmatch(path.name)
        if match and not _is_running(int(match[1])):
            path.unlink(missing_ok=True)


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
