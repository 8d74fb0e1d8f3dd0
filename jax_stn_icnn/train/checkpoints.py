"""The checkpoints of a run."""

import contextlib
import errno
import functools
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from jax_stn_icnn.train.state import TrainState

CHECKPOINTS = "checkpoints"
# The file in a checkpoint with the checksums of the others, in the format of `sha256sum`.
CHECKSUMS = "SHA256SUMS"
METADATA = "_CHECKPOINT_METADATA"  # Orbax's file in a checkpoint
NUM_LATEST = 2  # number of latest checkpoints that are not deleted
# What Orbax raises for damaged files.
_READING_ERRORS = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
_OTHER_BYTES = 2**20  # more than a checkpoint needs besides the arrays


class Checkpoints:
    """The checkpoints of a run: the latest two, and the best by validation.

    A checkpoint contains the state, the position of the data iterator, a record in JSON that
    describes the run and its progress, and the checksums of its files.
    """

    def __init__(self, workdir: Path):
        """Opens the checkpoints of a run's directory, which may have none yet."""
        self._directory = (workdir / CHECKPOINTS).absolute()
        self._saving = 0  # the step that is being saved
        _remove_damaged_metadata(self._directory)
        _drop_repeated_errors()
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(n=NUM_LATEST),
                        policies.BestN(
                            get_metric_fn=lambda metrics: metrics["rank"],
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                # `save` is called for the steps to save only.
                save_decision_policy=policies.FixedIntervalPolicy(1),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
                # Called when all files are written, before the directory receives its final name.
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """The step of the latest checkpoint; None if there is none."""
        return self._manager.latest_step()

    def path(self, step: int) -> Path:
        """Returns the directory of the checkpoint of a step."""
        return self._directory / str(step)

    def remove_damaged(self) -> list[str]:
        """Removes the latest checkpoints as far as their files are not as they were written.

        Returns:
            A line about each checkpoint that was removed; processes other than the first one return
            the steps only.

        Raises:
            ValueError: All checkpoints are damaged; none is removed.
        """
        damaged: dict[int, str] = {}
        steps = sorted(self._manager.all_steps(), reverse=True)
        if jax.process_index() == 0:
            for step in steps:
                if not (problem := _damage(self.path(step))):
                    break
                damaged[step] = f"{self.path(step)} is damaged: {problem}"
        if jax.process_count() > 1:
            count = int(multihost_utils.broadcast_one_to_all(np.int32(len(damaged))))
            damaged = damaged or {step: str(step) for step in steps[:count]}
        if damaged and len(damaged) == len(steps):
            raise ValueError(
                f"all checkpoints are damaged ({'; '.join(damaged.values())}): restore one from a "
                f"copy, or remove {self._directory} to start again"
            )
        for step in damaged:
            self._manager.delete(step)
        return list(damaged.values())

    def save(
        self,
        state: TrainState,
        iterator: grain.DatasetIterator,
        record: Mapping[str, Any],
        rank: float | None = None,
    ) -> None:
        """Saves in the background; the state may be donated as soon as this returns.

        Args:
            state: The state.
            iterator: The iterator of the training data.
            record: Anything that JSON can hold.
            rank: Rank of the state by validation, the higher the better; None without validation.

        Raises:
            OSError: This checkpoint, or the one before, cannot be written.
        """
        # Copied, since on a CPU the host's arrays may be the device's buffers, which the next step
        # overwrites.
        host_state = jax.tree.map(np.array, jax.device_get(state))
        self.wait()
        self._saving = int(host_state.step)
        self._check_space(host_state)
        with self._disk_errors():
            self._manager.save(
                self._saving,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(host_state),
                    data=grain.checkpoint.CheckpointSave(iterator),
                    record=ocp.args.JsonSave(dict(record)),
                ),
                metrics=None if rank is None else {"rank": rank},
            )

    def read_record(self, step: int) -> dict[str, Any]:
        """Returns the record of the checkpoint of a step.

        Raises:
            ValueError: It is damaged, which only checkpoints without checksums can be here.
        """
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        with self._damage_errors(step):
            return self._manager.restore(step, args=args)["record"]

    def restore(
        self, step: int, shapes: TrainState, iterator: grain.DatasetIterator | None = None
    ) -> TrainState:
        """Returns the state of a checkpoint, and sets the iterator's position.

        Args:
            step: The step of the checkpoint.
            shapes: A state of the same stage, or its shapes.
            iterator: The iterator of the training data, of as many processes and workers as the
                saved one; None if its position is not restored.

        Returns:
            The state, on the host.

        Raises:
            ValueError: As for `read_record`, or the state has other shapes.
        """
        empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
        items: dict[str, Any] = {"state": ocp.args.StandardRestore(empty)}
        if iterator is not None:
            items["data"] = grain.checkpoint.CheckpointRestore(iterator)
        with self._damage_errors(step):
            return self._manager.restore(step, args=ocp.args.Composite(**items))["state"]

    def preempted(self, step: int) -> bool:
        """Returns whether all processes are to stop after a step, since one received SIGTERM."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
            OSError: The latest checkpoint cannot be written.
        """
        with self._disk_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees resources.

        Raises:
            OSError: The latest checkpoint cannot be written.
        """
        with self._disk_errors():
            self._manager.close()

    def _check_space(self, state: TrainState) -> None:
        """Raises an OSError if a state does not fit on the disk.

        TensorStore, which writes many arrays at once, prints a traceback for each that fails.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OTHER_BYTES
        if shutil.disk_usage(self._directory).free < size:
            code = errno.ENOSPC
            raise OSError(code, os.strerror(code), str(self.path(self._saving)))

    def _write_checksums(self) -> None:
        """Writes the checksums of the checkpoint that is being saved."""
        if jax.process_index() == 0:
            (folder,) = self._directory.glob(f"{self._saving}.*")
            # Without Orbax's own metadata, beside the items, which it changes once more.
            lines = [
                f"{_checksum(path)}  {path.relative_to(folder).as_posix()}\n"
                for path in sorted(folder.glob("*/**/*"))
                if path.is_file()
            ]
            (folder / CHECKSUMS).write_text("".join(lines))

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Raises an OSError with one line if a checkpoint cannot be written, and removes its files.

        TensorStore raises a ValueError.
        """
        try:
            yield
        except (OSError, ValueError) as error:
            for path in self._directory.glob(f"{self._saving}.*"):
                shutil.rmtree(path, ignore_errors=True)
            raise OSError(*_reason(error), str(self.path(self._saving))) from error

    @contextlib.contextmanager
    def _damage_errors(self, step: int) -> Iterator[None]:
        """Raises a ValueError of one line that names the checkpoint if it cannot be read."""
        try:
            yield
        except (OSError, *_READING_ERRORS) as error:
            reason = str(error).partition("\n")[0][:300]
            raise ValueError(
                f"{self.path(step)} cannot be restored ({type(error).__name__}: {reason}): remove "
                "it to continue from the one before"
            ) from error


def _remove_damaged_metadata(directory: Path) -> None:
    """Removes Orbax's own metadata of checkpoints if they cannot be read.

    They contain times, without which Orbax warns. The manager cannot be opened if they are damaged.
    """
    if jax.process_index() == 0 and directory.exists():
        for checkpoint in ocp.path.step.standard_name_format().find_all(directory):
            try:
                checkpoint.commit_timestamp_nsecs  # noqa: B018 (reads the metadata)
            except _READING_ERRORS:
                (directory / str(checkpoint.step) / METADATA).unlink()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("metadata of checkpoints read")


def _damage(folder: Path) -> str:
    """Returns how a checkpoint differs from its checksums; empty if it does not, or has none."""
    if not (folder / CHECKSUMS).exists():
        return ""  # An earlier version of this package wrote it.
    lines = (folder / CHECKSUMS).read_text(errors="replace").splitlines()
    if not lines:
        return f"{CHECKSUMS} is empty"
    for line in lines:
        checksum, _, name = line.partition("  ")
        path = folder / name.replace("\0", "")
        if not path.is_file():
            return f"{name!r} is missing"
        if _checksum(path) != checksum:
            return f"{name} does not match its checksum"
    return ""


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: OSError | ValueError) -> tuple[int, str]:
    """Returns the number and the text of the system's error that an error of Orbax stands for."""
    if isinstance(error, OSError):
        return error.errno or 0, error.strerror or str(error)
    text = str(error)
    codes = [code for code in errno.errorcode if f": {os.strerror(code)}" in text]
    return (codes[0], os.strerror(codes[0])) if codes else (0, text.partition("[")[0].strip())


@functools.cache
def _drop_repeated_errors() -> None:
    """Drops messages about errors that are raised as well, or follow from one that is."""
    # Orbax logs the errors that it raises, with a traceback for each of its threads.
    logging.getLogger("absl").addFilter(
        lambda record: not ("orbax" in record.pathname and record.levelno >= logging.ERROR)
    )
    # It reads all arrays at once. If one cannot be read, the others end later, in a loop that is
    # closed, and with errors that nobody awaits.
    logging.getLogger("asyncio").addFilter(lambda record: "tensorstore" not in record.getMessage())
    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = report_others
