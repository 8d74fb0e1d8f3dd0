"""Lists the files that a command's arguments name: photos, videos and folders of them.

Only regular files are listed, so that reading one never blocks.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jax_stn_icnn.photos.reading import SUFFIXES

VIDEO_SUFFIXES = tuple(".avi .m4v .mkv .mov .mp4 .webm".split())
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
    """

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """Whether the suffix is that of a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


class InputFiles(NamedTuple):
    """The files to parse, and a message for each file that is skipped."""

    inputs: list[InputFile]
    skipped: list[str]


def find_files(arguments: Sequence[Path], out: Path | None, recursive: bool = False) -> InputFiles:
    """Lists the files that a command's arguments name.

    Args:
        arguments: files, with any suffix; and folders, of which the files with the suffix of an
            image or a video are listed.
        out: the output folder, if there is one; it is not searched.
        recursive: whether folders are searched recursively. Links to folders are not followed, so
            that no folder is searched twice.

    Returns:
        The files, those of a folder sorted by name; and why others were skipped.

    Raises:
        FileNotFoundError: an argument does not exist, or a folder contains no image or video.
        ValueError: an argument is neither a file nor a folder, the output folder is the folder of
            the photos, or two files have the same output files.
    """
    inputs: list[InputFile] = []
    skipped: list[str] = []
    for argument in arguments:
        if not argument.is_dir():
            if not os.path.lexists(argument):
                raise FileNotFoundError(f"there is no file or folder {argument}")
            if (kind := _irregular_kind(argument)) is not None:
                raise ValueError(f"{argument} is {kind}, but must be a file or a folder")
            inputs.append(InputFile(argument, Path(argument.name)))
            continue
        if out is not None and out.resolve() == argument.resolve():
            raise ValueError(f"--out is {out}, the folder of the photos: name another")
        in_folder = []
        for path in _files_in(argument, out, recursive, skipped):
            if path.suffix.lower() not in SUFFIXES + VIDEO_SUFFIXES:
                continue
            if (kind := _irregular_kind(path)) is not None:
                skipped.append(f"{path} is {kind}, not a file")
            else:
                in_folder.append(InputFile(path, path.relative_to(argument)))
        if not in_folder and not skipped:
            raise FileNotFoundError(
                f"{argument} contains no file named *{', *'.join(SUFFIXES + VIDEO_SUFFIXES)}"
                + ("" if recursive else "; --recursive also searches its subfolders")
            )
        inputs += in_folder
    inputs = list({file.path: file for file in inputs}.values())
    by_name: dict[Path, Path] = {}
    for path, name in inputs:
        if (other := by_name.setdefault(name, path)) is not path:
            raise ValueError(
                f"{other} and {path} have the same output files: parse them into different folders"
            )
    return InputFiles(inputs, skipped)


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
            if recursive and Path(place, name).resolve() != excluded
        ]
        yield from (Path(place, name) for name in sorted(names))


def _irregular_kind(path: Path) -> str | None:
    """Describes a path that is not a regular file; None for a regular file."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:  # a broken or circular link
        return f"unreadable ({error.strerror})"
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a regular file")
