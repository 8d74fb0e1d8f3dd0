"""Checks that the masks of a data set agree with each other, which no single mask shows."""

import numpy as np

from tfds_builders.archive import Archive, error
from tfds_builders.class_list import CLASSES, IGNORED_VALUE, ClassList


class MaskSurvey:
    """The values that the masks of a data set contain.

    In a data set of two classes, 255 is id 1 if no mask contains id 1, and means "ignored" if a
    mask contains both. If some masks contain only 1 and others only 255, the fewer deviate.
    """

    def __init__(self, classes: ClassList):
        """Starts without masks.

        Args:
          classes: the list of classes.
        """
        self._names = classes.names
        self._two_classes = len(classes.names) == 2 and not classes.colours
        self._first = ""
        self._seen = np.zeros(256, bool)
        # The masks of two classes by whether they contain (1, 255).
        self._with: dict[tuple[bool, bool], list[str]] = {(True, False): [], (False, True): []}
        self._has_both = False

    def add(self, member: str, values: np.ndarray) -> None:
        """Adds a mask.

        Args:
          member: the mask's name.
          values: the mask, uint8 or bool (H, W), as `masks.read_values` returns it.
        """
        self._first = self._first or member
        seen = np.bincount(values.ravel(), minlength=256) > 0
        self._seen |= seen
        if self._two_classes and values.dtype != bool:  # True is id 1 in any case
            kind = bool(seen[1]), bool(seen[IGNORED_VALUE])
            self._has_both |= all(kind)
            if kind in self._with:
                self._with[kind].append(member)

    def check(self, archive: Archive) -> bool:
        """Checks the masks against each other.

        Args:
          archive: the folder, for error messages.

        Returns:
          Whether 255 is id 1.

        Raises:
          ArchiveError: if all masks contain one and the same value only, or some contain 1 and
            others 255 for the same class.
        """
        if self._seen.sum() == 1:
            problem = f"contains only {self._seen.argmax()}, as all masks do"
            raise error(archive, self._first, problem, f"paint the classes of {CLASSES}")
        ones, whites = self._with[True, False], self._with[False, True]
        if whites and ones and not self._has_both:
            fewer, value, other = (
                (ones, 1, IGNORED_VALUE) if len(ones) < len(whites) else (whites, IGNORED_VALUE, 1)
            )
            problem = (
                f"contains {value}, but {max(len(ones), len(whites))} masks contain {other} "
                f"and {len(fewer)} contain {value}"
            )
            raise error(archive, fewer[0], problem, "paint the same class in the same value")
        return self._two_classes and bool(whites) and not (ones or self._has_both)

    def absent(self, id_of_255: bool) -> list[str]:
        """Returns the names of the classes that no mask contains.

        Args:
          id_of_255: whether 255 is id 1, the result of `check`.
        """
        seen = self._seen.copy()
        seen[1] |= id_of_255
        return [name for name, found in zip(self._names, seen, strict=False) if not found]
