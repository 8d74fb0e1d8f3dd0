"""What was measured, and the table of it."""

import dataclasses
from collections.abc import Sequence

from benchmarks import work
from benchmarks.rows import Row
from benchmarks.timing import Peak, Times, interleaved

HEADER = "| what | ours | images/s | peer | its | ratio | GFLOP | MB | fraction of peak |"
RULE = "|---|---|---|---|---|---|---|---|---|"


@dataclasses.dataclass
class Result:
    """A measured row.

    Attributes:
        name: what is done.
        unit: of the values.
        values: `ours` and its peers; less is better.
        absent: peers that cannot run here, and why.
        dtype: of the computation.
        images_per_second: ours.
        operations: that the work needs at the least.
        bytes: likewise.
        share: fraction of peak, by what the machine reaches on a product and on a copy.
    """

    name: str
    unit: str
    values: dict[str, Times]
    absent: dict[str, str]
    dtype: str = "float32"
    images_per_second: float | None = None
    operations: float | None = None
    bytes: float | None = None
    share: float | None = None

    def lines(self) -> list[str]:
        """A line of the table for each peer; one if there is none."""
        name = self.name if self.dtype == "float32" else f"{self.name}, {self.dtype}"
        speed = "" if self.images_per_second is None else f"{self.images_per_second:.3g}"
        least = ["", "", ""]
        if self.operations is not None and self.bytes is not None and self.share is not None:
            least = [
                f"{self.operations / 1e9:.3g}",
                f"{self.bytes / 1e6:.3g}",
                f"{self.share:.0%}",
            ]
        ours = self.values["ours"]
        peers = [
            [peer, self._text(times), f"{times.median / ours.median:.2f}"]
            for peer, times in self.values.items()
            if peer != "ours"
        ]
        peers += [[peer, f"not available: {why}", ""] for peer, why in self.absent.items()]
        first, *others = peers or [["", "", ""]]
        cells = [[name, self._text(ours), speed, *first, *least]]
        cells += [["", "", "", *peer, "", "", ""] for peer in others]
        return ["| " + " | ".join(line) + " |" for line in cells]

    def _text(self, times: Times) -> str:
        if times.low == times.high:
            return f"{times.median:.4g} {self.unit}"
        return f"{times.median:.4g} ({times.low:.4g}..{times.high:.4g}) {self.unit}"


def measure(row: Row, rounds: int, turn: float, peak: Peak) -> Result:
    """Times a row's calls against each other.

    Args:
        row: the row.
        rounds: how often each call has its turn.
        turn: about how many seconds a turn lasts.
        peak: what the machine reaches.

    Returns:
        The result, in milliseconds.
    """
    seconds = interleaved(row.calls, rounds, turn)
    values = {name: Times(*(1e3 * value for value in times)) for name, times in seconds.items()}
    ours = seconds["ours"].median
    result = Result(row.name, "ms", values, row.absent, row.dtype, row.images / ours)
    if row.work is not None:
        result.operations, result.bytes = row.work
        result.share = work.share(row.work, peak, ours)
    return result


def table(results: Sequence[Result]) -> str:
    """All results as a table in Markdown."""
    return "\n".join([HEADER, RULE, *(line for result in results for line in result.lines())])
