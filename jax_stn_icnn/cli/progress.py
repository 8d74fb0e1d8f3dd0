"""A progress bar that estimates time only after the networks are compiled."""

from types import TracebackType
from typing import Any

from tqdm import tqdm

_WITHOUT_TIME = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}"
# Items per second, also where they are fewer than one.
_WITH_TIME = (
    "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
)


class Progress:
    """A progress bar of photos or frames.

    The networks are compiled at the first face, which takes much longer than any later one. Until
    then the bar shows no time; afterwards it measures from there.
    """

    def __init__(self, total: int | None, unit: str, label: str | None = None, leave: bool = True):
        """Shows an empty bar.

        Args:
            total: number of items; None if it is not known. For one item or none there is no bar.
            unit: name of an item.
            label: text before the bar.
            leave: whether the bar remains when it is complete.
        """
        self._options: dict[str, Any] = {"total": total, "unit": unit}
        self._options["desc"] = None if label is None else f"{label}: "
        self._options |= {"leave": leave, "disable": total in (0, 1)}
        self._count = self._first = self._faces = 0
        self._bar = tqdm(**self._options | {"leave": False}, bar_format=_WITHOUT_TIME)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def update(self, num_faces: int) -> None:
        """Counts an item.

        Args:
            num_faces: its number of faces.
        """
        self._count += 1
        if num_faces and not self._first:
            self._first = self._count
            self._bar.close()
            self._bar = tqdm(**self._options, initial=self._count, bar_format=_WITH_TIME)
            return
        self._bar.update()
        if self._first:
            self._faces += num_faces
            seconds = self._bar.format_dict["elapsed"]
            self._bar.set_postfix_str(f"{self._faces / seconds:.1f} face/s" if seconds else "")
