"""Builds one of the data sets; needs no TensorFlow.

    python -m tfds_builders.prepare helen --manual_dir ~/Downloads --data_dir ~/datasets
    python -m tfds_builders.prepare my_faces --manual_dir ~ --data_dir ~/datasets

The second command builds a folder of your own, `~/my_faces`: see `image_folder.py`.

A build that is stopped or killed leaves no data set: TFDS writes to a folder `incomplete.*`, and
renames it after the last record. The next build removes such folders and starts again.
"""

import contextlib
import errno
import importlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock
import tensorflow_datasets as tfds
from absl import app, flags, logging

from tfds_builders import image_folder
from tfds_builders.archive import ArchiveError, find_archive
from tfds_builders.shapes import Framing

NAMES = ("celebamask_hq", "helen", "lapa", "synthetic_faces", "synthetic_portraits")


class PrepareError(Exception):
    """The data set cannot be prepared with these arguments."""


def prepare(
    name: str,
    data_dir: Path,
    manual_dir: Path | None,
    file_format: str,
    framing: Framing | None = None,
) -> str:
    """Builds a data set, unless it is complete already.

    Args:
      name: one of NAMES, or the name of a folder of images and masks in `manual_dir`.
      data_dir: the directory of prepared data sets.
      manual_dir: the directory of the downloaded archive; None for TFDS's default.
      file_format: "array_record" or "tfrecord".
      framing: how training frames the images of a folder of your own: "resize" requires square
        images, "pad" and "face" do not; None requires it if most images are square.

    Returns:
      One line with the data set's path and the number of records of each split.

    Raises:
      ArchiveError: if the archive is missing or damaged.
      PrepareError: if there is no such data set, it is complete in the other format, TensorFlow is
        needed and not installed, another process is preparing the same data set, or the disk is
        full or read-only.
    """
    if file_format == "tfrecord" and importlib.util.find_spec("tensorflow") is None:
        raise PrepareError("--file_format=tfrecord needs TensorFlow; pip install tensorflow")
    builder = _make_builder(name, data_dir, manual_dir, framing)
    destination = Path(builder.data_dir)
    if not destination.exists():
        with _lock(destination.parent), _disk_errors(destination):
            _remove_incomplete(destination.parent)
            config = tfds.download.DownloadConfig(manual_dir=manual_dir)
            builder.download_and_prepare(download_config=config, file_format=file_format)
        status = "prepared"
    else:
        _check_format(builder, file_format)
        status = "already complete"
    counts = ", ".join(
        f"{split} {info.num_examples}" for split, info in builder.info.splits.items()
    )
    return f"{status}: {destination} ({file_format}; {counts})"


def _make_builder(
    name: str, data_dir: Path, manual_dir: Path | None, framing: Framing | None
) -> tfds.core.DatasetBuilder:
    if name in NAMES:
        module = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")
        return module.Builder(data_dir=data_dir)
    if (complete := data_dir / name / image_folder.VERSION).exists():
        return tfds.builder_from_directory(complete)  # does not need the folder of images
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise PrepareError(
            "a data set's name must consist of lower-case letters, digits and underscores, and "
            f"start with a letter; got {name!r}"
        )
    archive = find_archive(manual_dir, name, "fix it in your folder") if manual_dir else None
    if archive is None:
        raise PrepareError(
            f"expected one of {', '.join(NAMES)}, or the name of a folder of images and masks in "
            f"--manual_dir; got {name!r}, and --manual_dir is {manual_dir or 'not set'}"
        )
    return image_folder.ImageFolder(name, archive, data_dir, framing)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Locks a data set's folder, and removes it again if an error leaves it empty.

    The system releases the lock if the process is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the folder, so that the folder holds nothing but data sets.
    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        acquired = lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise PrepareError(f"another process is preparing {folder}; wait until it ends") from error
    with acquired:
        try:
            yield
        except Exception:
            if not any(folder.iterdir()):
                folder.rmdir()
            raise


@contextlib.contextmanager
def _disk_errors(destination: Path) -> Iterator[None]:
    """Adds to an error of a full or read-only disk that the command can run again."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise PrepareError(
            f"{destination}: {os.strerror(error.errno)}; nothing of the data set was left there, "
            "run the command again when the disk can be written"
        ) from error


def _remove_incomplete(folder: Path) -> None:
    """Removes the folders that killed builds have left."""
    for path in folder.glob("incomplete.*"):
        print(f"removing {path}, left by a build that was killed")
        shutil.rmtree(path)


def _check_format(builder: tfds.core.DatasetBuilder, expected: str) -> None:
    """Checks the format of a complete data set, which TFDS accepts in any format."""
    found = builder.info.file_format.value
    if found != expected:
        raise PrepareError(
            f"{builder.data_dir} contains {found}; set another --data_dir to prepare {expected}"
        )


def define_flags() -> None:
    """Defines the command's flags; not on import, because other programs define the same ones."""
    flags.DEFINE_string("manual_dir", None, "Directory of the archive or of its unpacked folder.")
    flags.DEFINE_string("data_dir", "~/tensorflow_datasets", "Directory of prepared data sets.")
    flags.DEFINE_enum(
        "file_format",
        "array_record",
        ["array_record", "tfrecord"],
        "array_record has random access; tfrecord, for tf.data, needs TensorFlow.",
    )
    flags.DEFINE_enum(
        "framing",
        None,
        ["resize", "pad", "face"],
        "How training frames the images of your own folder; resize requires square images. "
        "Default: they must all be square if more than nine in ten are.",
    )
    flags.FLAGS.set_default("verbosity", logging.WARNING)


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
      argv: the names of the program and of the data set.
    """
    if len(argv) != 2:
        raise app.UsageError(f"expected one of {', '.join(NAMES)}; got {list(argv[1:])}")
    values = flags.FLAGS
    manual_dir = Path(values.manual_dir).expanduser() if values.manual_dir else None
    try:
        data_dir = Path(values.data_dir).expanduser()
        print(prepare(argv[1], data_dir, manual_dir, values.file_format, values.framing))
    except (ArchiveError, PrepareError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted before the data set was complete; run the command again")


if __name__ == "__main__":
    define_flags()
    app.run(main)
