"""Entries of a cache on disk: read only where no other user can write, verified, bounded.

A compiled program is code. An entry is therefore read only if it, its directory and all directories
above belong to this user or to root, and nobody else can write to them. Nothing in an entry is
unpickled. Its checksum covers its name: a damaged, truncated or renamed entry is recognized.
"""

import contextlib
import functools
import hashlib
import logging
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

# The least recently used entries beyond these bytes are removed.
MAX_BYTES = 10**9

LOG = logging.getLogger(__name__)


def make_directory(directory: Path) -> None:
    """Creates a directory, and missing ones above, for this user alone.

    Raises:
        OSError: It cannot be created.
    """
    for folder in (*reversed(directory.parents), directory):
        folder.mkdir(mode=0o700, exist_ok=True)


def read(path: Path) -> bytes | None:
    """Returns the contents of an entry.

    Args:
        path: The path that `write` got.

    Returns:
        The contents; None, with a warning, if others can write to the entry or its directory, or
        if the entry is damaged or cannot be read; None without a warning if it does not exist.
    """
    try:
        if not path.exists() or not is_trusted(path):
            return None
        data = path.read_bytes()
    except OSError as error:
        LOG.warning("%s cannot be read (%s); it is computed again", path, error)
        return None
    size = hashlib.sha256().digest_size
    checksum, body = data[:size], data[size:]
    if checksum != _checksum(path, body):
        LOG.warning("%s is damaged; it is computed again", path)
        return None
    with contextlib.suppress(OSError):  # A cache that cannot be written to is not made smaller.
        os.utime(path)
    return zlib.decompress(body)


def write(path: Path, data: bytes) -> None:
    """Writes an entry atomically, whichever other process writes the same.

    A directory that cannot be written to costs only time, so that is only a warning, once.
    """
    partial = None
    try:
        make_directory(path.parent)
        if not is_trusted(path.parent):
            return
        body = zlib.compress(data, level=1)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            partial = Path(file.name)
            file.write(_checksum(path, body) + body)
        os.replace(partial, path)
        remove_oldest(path.parent.iterdir())
    except OSError as error:
        warn_not_writable(path.parent, error)
        if partial is not None:
            partial.unlink(missing_ok=True)


def remove_oldest(paths: Iterable[Path]) -> None:
    """Removes the files that were used least recently, so that the rest has at most MAX_BYTES.

    Args:
        paths: Files; other processes may remove some of them.

    Raises:
        OSError: A file cannot be removed.
    """
    free = MAX_BYTES
    states = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            states.append((path, path.stat()))
    for path, state in sorted(states, key=lambda item: item[1].st_mtime_ns, reverse=True):
        free -= state.st_size
        if free < 0:
            path.unlink(missing_ok=True)


def is_trusted(path: Path) -> bool:
    """Whether nobody but this user and root can change a file or a directory; if not, warns once.

    Args:
        path: An existing path.
    """
    culprit = _writable_by_others(path)
    if culprit is not None:
        warn_once(f"{culprit} can be changed by other users; programs cached there are not used")
    return culprit is None


def warn_not_writable(directory: Path, error: OSError) -> None:
    """Warns once that a directory cannot be written to."""
    warn_once(
        f"{directory} cannot be written to ({error.strerror}); compiled programs are not cached"
    )


@functools.cache
def warn_once(message: str) -> None:
    """Logs a warning that this process has not logged yet."""
    LOG.warning(message)


def _checksum(path: Path, body: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + body).digest()


def _writable_by_others(path: Path) -> Path | None:
    """Returns the first of a path and the directories above that others can change.

    On Windows, the folders of a user are private, and a mode tells nothing about others.
    """
    if sys.platform == "win32":
        return None
    path = path.absolute()
    # The directories of a symbolic link, and those that it leads to.
    for part in (path, *path.parents, *path.resolve().parents):
        state = part.stat()
        # Of a directory with the sticky bit, such as /tmp, others cannot rename what is not theirs.
        is_shared = part != path and state.st_mode & stat.S_ISVTX
        by_group = state.st_mode & stat.S_IWGRP and not _is_own_group(state.st_gid)
        if state.st_uid not in (0, os.getuid()):
            return part
        if not is_shared and (state.st_mode & stat.S_IWOTH or by_group):
            return part
    return None


@functools.cache
def _is_own_group(group_id: int) -> bool:
    """Whether a group is a user's private one, as many systems create for each user."""
    import grp
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
        group = grp.getgrgid(group_id)
    except KeyError:  # Not in the lists of users and groups, as in some containers
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}
