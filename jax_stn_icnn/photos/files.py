"""Lists the files that a command's arguments name: photos, videos and folders of them.

Only regular files are listed, so that reading one never blocks.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jax_stn_icnn.photos.reading import SUFFIXES
from tfds_builders.hidden import is_hidden

VIDEO_SUFFIXES = tuple(".avi .m4v .mkv .mov .mp4 .webm".split())
RESULTS = "results of this command"  # how `InputFiles.left_out` names them
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class InputFile(NamedTuple):
    """A photo or video to parse.

    Attributes:
        path: its path.
        name: path of its results without their suffixes, relative to the output folder.
        fingerprint: its size and time of modification, as text.
    """

    path: Path
    name: Path
    fingerprint: str

    @property
    def is_video(self) -> bool:
        """Whether the suffix is that of a video."""
        return is_video(self.path.name)


class InputFiles(NamedTuple):
    """The files to parse, and those that are not parsed.

    Attributes:
        inputs: the files to parse.
        errors: a message for each argument that names no photo.
        skipped: a message for each file or folder in a folder that cannot be read.
        left_out: for each suffix the number of files in folders that have it and are neither photos
            nor videos. Hidden files are not counted.
    """

    inputs: list[InputFile]
    errors: list[str]
    skipped: list[str]
    left_out: Counter[str]


def find_files(
    arguments: Sequence[Path],
    out: Path | None,
    recursive: bool = False,
    is_result: Callable[[Path], bool] = lambda path: False,
) -> InputFiles:
    """Lists the files that a command's arguments name.

    Args:
        arguments: files, with any suffix; and folders, of which the files with the suffix of an
            image or a video are listed, except hidden ones (`tfds_builders.hidden`).
        out: the output folder, if there is one; it is not searched.
        recursive: whether folders are searched recursively. Links to folders are not followed, so
            that no folder is searched twice.
        is_result: whether a file was written by the command; such files are not listed.

    Returns:
        The files, those of a folder sorted by name; and those that are not parsed.

    Raises:
        ValueError: the output folder is the folder of the photos, or two files have the same output
            files.
    """
    found = InputFiles([], [], [], Counter())
    for argument in arguments:
        if argument.is_dir():
            if out is not None and out.resolve() == argument.resolve():
                raise ValueError(f"--out is {out}, the folder of the photos: name another")
            _add_folder(found, argument, out, recursive, is_result)
        elif not os.path.lexists(argument):
            found.errors.append(f"there is no file or folder {argument}")
        elif (kind := _irregular_kind(argument)) is not None:
            found.errors.append(f"{argument} is {kind}, but must be a file or a folder")
        elif is_result(argument):
            found.left_out[RESULTS] += 1
        else:
            found.inputs.append(_input_file(argument, Path(argument.name)))
    inputs = list({file.path: file for file in found.inputs}.values())
    by_name: dict[Path, Path] = {}
    for file in inputs:
        if (other := by_name.setdefault(file.name, file.path)) is not file.path:
            raise ValueError(
                f"{other} and {file.path} have the same output files: parse them into different "
                "folders"
            )
    return found._replace(inputs=inputs)


def is_video(name: str) -> bool:
    """Whether a file name has the suffix of a video."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def has_suffix(name: str, suffixes: Sequence[str], left_out: Counter[str]) -> bool:
    """Whether a file in a folder has one of the suffixes; counts it otherwise, unless it is hidden.

    Args:
        name: path of the file, relative to the folder.
        suffixes: the suffixes, in lower case.
        left_out: the counter, by suffix.
    """
    if is_hidden(name):
        return False
    suffix = Path(name).suffix.lower()
    if suffix not in suffixes:
        left_out[suffix or "without suffix"] += 1
        return False
    return True


def _add_folder(
    found: InputFiles,
    folder: Path,
    out: Path | None,
    recursive: bool,
    is_result: Callable[[Path], bool],
) -> None:
    """Adds the files of a folder."""
    before = len(found.inputs), len(found.skipped)
    for path in _files_in(folder, out, recursive, found.skipped):
        name = path.relative_to(folder)
        if not has_suffix(str(name), SUFFIXES + VIDEO_SUFFIXES, found.left_out):
            continue
        if (kind := _irregular_kind(path)) is not None:
            found.skipped.append(f"{path} is {kind}, not a file")
        elif is_result(path):
            found.left_out[RESULTS] += 1
        else:
            found.inputs.append(_input_file(path, name))
    if before == (len(found.inputs), len(found.skipped)):
        found.errors.append(
            f"{folder} contains no file named *{', *'.join(SUFFIXES + VIDEO_SUFFIXES)}"
            + ("" if recursive else "; --recursive also searches its subfolders")
        )


def _files_in(
    folder: Path, out: Path | None, recursive: bool, skipped: list[str]
) -> Iterator[Path]:
    """Yields all entries of a folder except folders, sorted by name."""
    excluded = None if out is None else out.resolve()

    def on_error(error: OSError) -> None:
        skipped.append(f"{error.filename} cannot be searched: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=on_error):
        folders[:] = [
            name
            for name in sorted(folders)
            if recursive and not is_hidden(name) and Path(place, name).resolve() != excluded
        ]
        yield from (Path(place, name) for name in sorted(names))


def _input_file(path: Path, name: Path) -> InputFile:
    status = os.stat(path)
    return InputFile(path, name, f"{status.st_size} bytes, modified {status.st_mtime_ns}")


def _irregular_kind(path: Path) -> str | None:
    """Describes a path that is not a regular file; None for a regular file."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:  # a broken or circular link
        return f"unreadable ({error.strerror})"
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a regular file")
