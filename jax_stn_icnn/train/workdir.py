"""The directory of a run: one process at a time trains in it, and errors of its disk name it."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from jax_stn_icnn.atomic import is_disk_error, remove_partial_files
from jax_stn_icnn.io.weights import WEIGHTS
from jax_stn_icnn.train.checkpoints import CHECKPOINTS

LOCK = ".lock"
# The file with the process that holds the lock, for the message.
_OWNER = ".process"


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
    """Locks the directory of a run, which is created if it is missing.

    The system releases the lock if the process is killed. Files that a killed process left
    incomplete are removed.

    Args:
        workdir: The run's directory.

    Raises:
        ValueError: Another process trains in it; the message names the process.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    owner = workdir / _OWNER
    try:
        lock = filelock.FileLock(workdir / LOCK).acquire(timeout=0)
    except filelock.Timeout as error:
        process = (owner.exists() and owner.read_text()) or "another process"
        raise ValueError(
            f"{process} trains in {workdir}: wait until it ends, or name another --workdir"
        ) from error
    with lock:
        try:
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            remove_partial_files(workdir)
            yield
        finally:
            owner.unlink(missing_ok=True)


@contextlib.contextmanager
def name_intact_files(workdir: Path) -> Iterator[None]:
    """Adds to an error of a full or read-only disk what of the run is intact.

    Args:
        workdir: The run's directory.

    Raises:
        OSError: The error, with one line of text.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        steps = [
            int(path.name) for path in (workdir / CHECKPOINTS).glob("*") if path.name.isdigit()
        ]
        intact = [f"the checkpoint of step {max(steps)}"] if steps else []
        intact += [WEIGHTS] if (workdir / WEIGHTS).exists() else []
        raise OSError(
            f"{error.filename or workdir}: {error.strerror}; "
            f"intact: {' and '.join(intact) or 'nothing, no checkpoint was complete'}; the same "
            "command continues when the disk can be written"
        ) from error
