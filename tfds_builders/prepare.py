"""Builds one of the data sets; needs no TensorFlow.

    python -m tfds_builders.prepare helen --manual_dir ~/Downloads --data_dir ~/datasets
    python -m tfds_builders.prepare my_faces --manual_dir ~ --data_dir ~/datasets

The second is a folder of your own, `~/my_faces`: see `image_folder.py`.

A run that was stopped or killed leaves nothing that TFDS would take for a data set: TFDS writes to
a folder `incomplete.*` and renames it at the very end. The next run removes such folders and starts
again.
"""

import contextlib
import fcntl
import importlib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from absl import app, flags, logging

from tfds_builders import image_folder
from tfds_builders.archive import ArchiveError, find_archive

NAMES = ("celebamask_hq", "helen", "synthetic_faces")


class PrepareError(Exception):
    """The data set cannot be prepared as asked."""


def prepare(name: str, data_dir: Path, manual_dir: Path | None, file_format: str) -> str:
    """Builds a data set, unless it is there already.

    Args:
      name: one of NAMES, or that of a folder of pictures and masks in `manual_dir`.
      data_dir: where TFDS keeps its data sets.
      manual_dir: the directory with the downloaded archive; None for TFDS's default.
      file_format: "array_record" or "tfrecord".

    Returns:
      One line that says where the data set is and how many records each split has.

    Raises:
      ArchiveError: if the archive is missing or damaged.
      PrepareError: if there is no such data set, it is there in the other format, TensorFlow is
        needed and absent, or another process prepares the same data set.
    """
    if file_format == "tfrecord" and importlib.util.find_spec("tensorflow") is None:
        raise PrepareError("--file_format=tfrecord needs TensorFlow; pip install tensorflow")
    builder = _builder(name, data_dir, manual_dir)
    destination = Path(builder.data_dir)
    if not destination.exists():
        with _only_writer(destination.parent):
            _remove_stale(destination.parent)
            config = tfds.download.DownloadConfig(manual_dir=manual_dir)
            builder.download_and_prepare(download_config=config, file_format=file_format)
        verb = "prepared"
    else:
        _check_format(builder, file_format)
        verb = "already complete"
    counts = ", ".join(
        f"{split} {info.num_examples}" for split, info in builder.info.splits.items()
    )
    return f"{verb}: {destination} ({file_format}; {counts})"


def _builder(name: str, data_dir: Path, manual_dir: Path | None) -> tfds.core.DatasetBuilder:
    if name in NAMES:
        module = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")
        return module.Builder(data_dir=data_dir)
    if (complete := data_dir / name / image_folder.VERSION).exists():
        return tfds.builder_from_directory(complete)  # The folder itself is needed no more.
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise PrepareError(f"a data set's name has small letters, digits and _; got {name!r}")
    archive = find_archive(manual_dir, name, "put it right in your folder") if manual_dir else None
    if archive is None:
        raise PrepareError(
            f"name one data set of {', '.join(NAMES)}, or a folder of pictures and masks in "
            f"--manual_dir; got {name!r}, and --manual_dir is {manual_dir or 'not given'}"
        )
    return image_folder.ImageFolder(name, archive, data_dir)


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Locks a folder against other runs; the lock goes with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PrepareError(f"another process is preparing {folder}; wait for it") from error
        yield
    finally:
        os.close(handle)


def _remove_stale(folder: Path) -> None:
    """Removes what killed runs left behind."""
    for path in folder.glob("incomplete.*"):
        print(f"removing {path}, left by a run that was killed")
        shutil.rmtree(path)


def _check_format(builder: tfds.core.DatasetBuilder, wanted: str) -> None:
    """TFDS takes a data set that is there for done, whatever its format."""
    found = builder.info.file_format.value
    if found != wanted:
        raise PrepareError(
            f"{builder.data_dir} holds it as {found}; name another --data_dir for {wanted}"
        )


def define_flags() -> None:
    """Defines the command's flags; not on import, where they would meet those of other programs."""
    flags.DEFINE_string("manual_dir", None, "Directory of the archive, or of its unpacked folder.")
    flags.DEFINE_string("data_dir", "~/tensorflow_datasets", "Where the data sets are written.")
    flags.DEFINE_enum(
        "file_format",
        "array_record",
        ["array_record", "tfrecord"],
        "array_record has random access; tfrecord, which needs TensorFlow, is for tf.data.",
    )
    flags.FLAGS.set_default("verbosity", logging.WARNING)


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
      argv: the program's name and the data set's.
    """
    if len(argv) != 2:
        raise app.UsageError(f"name one data set of {', '.join(NAMES)}; got {list(argv[1:])}")
    values = flags.FLAGS
    manual_dir = Path(values.manual_dir).expanduser() if values.manual_dir else None
    try:
        print(prepare(argv[1], Path(values.data_dir).expanduser(), manual_dir, values.file_format))
    except (ArchiveError, PrepareError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; nothing was kept, run the same command again")


if __name__ == "__main__":
    define_flags()
    app.run(main)
