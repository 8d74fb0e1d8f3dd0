"""The list of classes of a folder of images and masks, `classes.txt`: one line per id, from 0.

A line is a class, a union of classes joined by `+` (`skin+neck`: one of them, unknown which), or
`ignore` (any class). Each line may end in the colour that stands for its id in the masks:
`hair #ff0000`.
"""

import re
from typing import NamedTuple

from tfds_builders import archive as archive_lib

CLASSES = "classes.txt"
IGNORE = "ignore"
IGNORED_VALUE = 255
"""Mask value of pixels of any class; the id of a line only if there are 256 lines."""

_COLOUR = re.compile(r"(.*\S)\s+#([0-9a-fA-F]{6})")

Colour = tuple[int, int, int]


class ClassList(NamedTuple):
    """The lines of `classes.txt`, in the order of their ids."""

    names: list[str]
    """A class, a union such as `skin+neck`, or `ignore`."""
    colours: list[Colour] | None
    """Red, green and blue of each id in the masks; None if masks contain ids."""


def read_classes(archive: archive_lib.Archive) -> ClassList:
    """Reads the list of classes.

    Args:
      archive: the folder.

    Returns:
      The names and colours, in the order of their ids.

    Raises:
      ArchiveError: if the list is missing, has not 2 to 256 lines, a line is blank, a union has an
        empty member or one twice, two lines are equal, or only some lines have colours.
    """
    if CLASSES not in archive:
        remedy = "write it: one class per line, in the order of the ids"
        raise archive_lib.error(archive, CLASSES, "is missing", remedy)
    lines = "\n".join(archive_lib.read_lines(archive, CLASSES)).rstrip().splitlines()
    if not 2 <= len(lines) <= 256:
        problem = f"has {len(lines)} lines"
        raise archive_lib.error(archive, CLASSES, problem, "list 2 to 256 classes, one per line")
    found = [_COLOUR.fullmatch(line.strip()) for line in lines]
    texts = [match[1] if match else line for match, line in zip(found, lines, strict=True)]
    colours = [_parse_colour(match[2]) for match in found if match]
    for number, match in enumerate(found, start=1):
        if colours and not match:
            raise archive_lib.error(
                archive,
                _line(number),
                "has no colour, but other lines have",
                "end each line in a colour, such as #ff0000, or none",
            )
    names = [_read_name(archive, number, text) for number, text in enumerate(texts, start=1)]
    _check_unique(archive, [frozenset(name.split("+")) for name in names], "lists the classes")
    _check_unique(archive, colours, "has the colour")
    return ClassList(names, colours or None)


def _parse_colour(digits: str) -> Colour:
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def _read_name(archive: archive_lib.Archive, number: int, text: str) -> str:
    """Returns a line's members, joined by `+` without blanks."""
    members = [member.strip() for member in text.split("+")]
    if not all(members):
        problem = "is blank" if members == [""] else f"{text!r} has a member without a name"
        remedy = "write one class per line, or a union such as skin+neck"
        raise archive_lib.error(archive, _line(number), problem, remedy)
    if twice := [member for member in members if members.count(member) > 1]:
        problem = f"lists {twice[0]} twice"
        raise archive_lib.error(archive, _line(number), problem, "list each class of a union once")
    if IGNORE in members and len(members) > 1:
        problem = f"{text!r} has {IGNORE} in a union"
        raise archive_lib.error(archive, _line(number), problem, f"{IGNORE} is any class already")
    return "+".join(members)


def _check_unique(archive: archive_lib.Archive, values: list, predicate: str) -> None:
    for number, value in enumerate(values, start=1):
        first = values.index(value) + 1
        if first != number:
            problem = f"{predicate} of line {first}"
            raise archive_lib.error(archive, _line(number), problem, "make each line different")


def _line(number: int) -> str:
    return f"{CLASSES}, line {number}"
