"""Which files a command's arguments name: photos, folders of them, videos; nothing that hangs."""

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


class Source(NamedTuple):
    """A file to be parsed.

    Attributes:
        path: where it is.
        name: where its results go, relative to the folder for them, without their endings.
    """

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """Whether its name says that it is a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


class Found(NamedTuple):
    """What was found, and what was left out: a line for each that says why."""

    sources: list[Source]
    skipped: list[str]


def find_files(arguments: Sequence[Path], out: Path | None, recursive: bool = False) -> Found:
    """Lists the files that a command's arguments name.

    Args:
        arguments: files, taken whatever they are called; and folders, of which the files that are
            called like pictures or videos are taken.
        out: the folder for the results, if there will be any; it is passed over.
        recursive: whether folders inside folders are searched too. Links to folders are not
            followed, so that none is searched twice.

    Returns:
        The files, a folder's in the order of their names; and why others were left out.

    Raises:
        FileNotFoundError: there is no such file or folder, or nothing in a folder.
        ValueError: results would mix with the photos, or two files would write the same results.
    """
    sources: list[Source] = []
    skipped: list[str] = []
    for argument in arguments:
        if not argument.is_dir():
            if not os.path.lexists(argument):
                raise FileNotFoundError(f"there is no file or folder {argument}")
            if (kind := _not_a_file(argument)) is not None:
                raise ValueError(f"{argument} is {kind}, but must be a file or a folder")
            sources.append(Source(argument, Path(argument.name)))
            continue
        if out is not None and out.resolve() == argument.resolve():
            raise ValueError(f"--out is {out}, the photos' own folder: name another")
        found = []
        for path in _files_in(argument, out, recursive, skipped):
            if path.suffix.lower() not in SUFFIXES + VIDEO_SUFFIXES:
                continue
            if (kind := _not_a_file(path)) is not None:
                skipped.append(f"{path} is {kind}, not a file")
            else:
                found.append(Source(path, path.relative_to(argument)))
        if not found and not skipped:
            raise FileNotFoundError(
                f"{argument} holds no file called *{', *'.join(SUFFIXES + VIDEO_SUFFIXES)}"
                + ("" if recursive else "; folders inside are searched with --recursive")
            )
        sources += found
    sources = list({source.path: source for source in sources}.values())
    by_name: dict[Path, Path] = {}
    for path, name in sources:
        if (other := by_name.setdefault(name, path)) is not path:
            raise ValueError(f"{other} and {path} would write the same files: parse them apart")
    return Found(sources, skipped)


def _files_in(
    folder: Path, out: Path | None, recursive: bool, skipped: list[str]
) -> Iterator[Path]:
    """Everything in a folder but folders, in the order of names."""
    passed_over = None if out is None else out.resolve()

    def complain(error: OSError) -> None:
        skipped.append(f"{error.filename} cannot be searched: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=complain):
        folders[:] = [
            name
            for name in sorted(folders)
            if recursive and Path(place, name).resolve() != passed_over
        ]
        yield from (Path(place, name) for name in sorted(names))


def _not_a_file(path: Path) -> str | None:
    """What a path is instead of a regular file, in words; None for a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:  # a link to nothing, or in a circle
        return f"unreadable ({error.strerror})"
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")
