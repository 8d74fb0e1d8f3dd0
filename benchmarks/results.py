"""Measured rows, and their table."""

import dataclasses
from collections.abc import Sequence

from benchmarks.rows import Row
from benchmarks.timing import Peak, Times, interleaved
from benchmarks.work import fraction_of_peak

HEADER = (
    "| benchmark | ours | images/s | peer | peer's value | ratio | GFLOP | MB | fraction of peak |"
)
RULE = "|---|---|---|---|---|---|---|---|---|"


@dataclasses.dataclass
class Result:
    """A measured row.

    Attributes:
        name: Name of the benchmark.
        unit: Unit of the values.
        values: `ours` and the peers' values; smaller is better.
        unavailable: Peers that cannot run here, and the reason.
        dtype: Type of the computation.
        images_per_second: Images per second of `ours`.
        operations: Minimum number of operations of the work.
        bytes: Minimum number of bytes of the work.
        fraction_of_peak: Of `ours`; the peaks are those of a matrix product and of a copy.
    """

    name: str
    unit: str
    values: dict[str, Times]
    unavailable: dict[str, str]
    dtype: str = "float32"
    images_per_second: float | None = None
    operations: float | None = None
    bytes: float | None = None
    fraction_of_peak: float | None = None

    def lines(self) -> list[str]:
        """Returns a line of the table for each peer, at least one."""
        name = self.name if self.dtype == "float32" else f"{self.name}, {self.dtype}"
        speed = "" if self.images_per_second is None else f"{self.images_per_second:.3g}"
        work = ["", "", ""]
        if (
            self.operations is not None
            and self.bytes is not None
            and self.fraction_of_peak is not None
        ):
            work = [
                f"{self.operations / 1e9:.3g}",
                f"{self.bytes / 1e6:.3g}",
                f"{self.fraction_of_peak:.0%}",
            ]
        ours = self.values["ours"]
        peers = [
            [peer, self._text(times), f"{times.median / ours.median:.2f}"]
            for peer, times in self.values.items()
            if peer != "ours"
        ]
        peers += [[peer, f"not available: {why}", ""] for peer, why in self.unavailable.items()]
        first, *others = peers or [["", "", ""]]
        cells = [[name, self._text(ours), speed, *first, *work]]
        cells += [["", "", "", *peer, "", "", ""] for peer in others]
        return ["| " + " | ".join(line) + " |" for line in cells]

    def _text(self, times: Times) -> str:
        if times.low == times.high:
            return f"{times.median:.4g} {self.unit}"
        return f"{times.median:.4g} ({times.low:.4g}..{times.high:.4g}) {self.unit}"


def measure(row: Row, rounds: int, duration: float, peak: Peak) -> Result:
    """Times a row's calls alternately.

    Args:
        row: The row.
        rounds: Number of measurements of each call.
        duration: Approximate seconds of a measurement.
        peak: Peak performance of the machine.

    Returns:
        The result, in milliseconds.
    """
    seconds = interleaved(row.calls, rounds, duration)
    values = {name: Times(*(1e3 * value for value in times)) for name, times in seconds.items()}
    ours = seconds["ours"].median
    result = Result(row.name, "ms", values, row.unavailable, row.dtype, row.images / ours)
    if row.work is not None:
        result.operations, result.bytes = row.work
        result.fraction_of_peak = fraction_of_peak(row.work, peak, ours)
    return result


def table(results: Sequence[Result]) -> str:
    """Returns all results as a Markdown table."""
    return "\n".join([HEADER, RULE, *(line for result in results for line in result.lines())])
