"""Measures speed and memory of this project and of its peers, and prints a table.

    python -m benchmarks.run                                  # all benchmarks but scaling
    python -m benchmarks.run --only sampler,pipeline --json found.json --append
    python -m benchmarks.run --only scaling                   # cost by batch, frame and devices
    python -m benchmarks.run --quick                          # small batches, to check that it runs

docs/performance.md describes the measurements; --append adds the table to
docs/notes/2026-11/performance_tables.md. Each row is measured in a process of its own; the process
of the command uses no device.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from absl import app, flags
from tqdm import tqdm

from benchmarks import full_face, memory, process, scaling, startup
from benchmarks.measure_row import BENCHMARKS
from benchmarks.results import Result, table
from benchmarks.rows import Settings
from benchmarks.timing import Times

DOCUMENT = Path(__file__).parents[1] / "docs/notes/2026-11/performance_tables.md"
# What is measured in other ways than by calling functions by turns.
OTHERS: dict[str, Callable[[Settings], list[Result]]] = {
    "startup": startup.measure,
    "memory": memory.measure,
    "full_face": full_face.measure,
    "scaling": scaling.measure,
}
NAMES = tuple(dict.fromkeys([*BENCHMARKS, *OTHERS]))

_ONLY = flags.DEFINE_list(
    "only", None, f"Benchmarks to run, of {', '.join(NAMES)}; all but scaling by default."
)
_JSON = flags.DEFINE_string("json", None, "File that the results are written to.")
_APPEND = flags.DEFINE_bool("append", False, f"Append the table to {DOCUMENT.name}.")
_QUICK = flags.DEFINE_bool("quick", False, "Small batches and one round, to check that it runs.")


def _measurements(
    names: Sequence[str], settings: Settings
) -> list[tuple[str, Callable[[], list[Result]]]]:
    """Returns what to measure: the benchmark's name, and a function that measures."""
    found: list[tuple[str, Callable[[], list[Result]]]] = []
    for name in names:
        count = len(BENCHMARKS[name](settings)) if name in BENCHMARKS else 0
        found += [(name, partial(_measure_row, name, index, settings)) for index in range(count)]
        if name in OTHERS:
            found.append((name, partial(OTHERS[name], settings)))
    return found


def _measure_row(name: str, index: int, settings: Settings) -> list[Result]:
    options = json.dumps(settings._asdict())
    output = process.run("-m", "benchmarks.measure_row", name, str(index), options)
    fields = json.loads(output.splitlines()[-1])
    values = {peer: Times(*times) for peer, times in fields.pop("values").items()}
    return [Result(values=values, **fields)]


def _head(described: dict[str, Any]) -> str:
    """Returns a line with the machine, and a line with its peak performance."""
    peaks = described["peaks"]
    performance = ", ".join(
        f"{peak['operations'] / 1e9:.0f} GFLOP/s in a matrix product of {dtype}"
        for dtype, peak in peaks.items()
    )
    bandwidth = f"{peaks['float32']['bytes'] / 1e9:.1f} GB/s in a copy"
    words = ", ".join(f"{name} {value}" for name, value in described["machine"].items())
    return f"{words}.\n\nPeak: {performance}, {bandwidth}."


def _as_json(described: dict[str, Any], found: list[Result]) -> str:
    results = [dataclasses.asdict(result) for result in found]
    content = {"date": time.strftime("%Y-%m-%d"), **described, "results": results}
    return json.dumps(content, indent=2) + "\n"


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    names = _ONLY.value or [name for name in NAMES if name != "scaling"]
    if unknown := [name for name in names if name not in NAMES]:
        raise app.UsageError(f"--only is {', '.join(unknown)}, but must be some of {NAMES}")
    described = json.loads(process.run("-m", "benchmarks.machine").splitlines()[-1])
    settings = Settings(_QUICK.value, tuple(described["peaks"]))
    head = _head(described)
    print(head, flush=True)
    found: list[Result] = []
    with tqdm(_measurements(names, settings), unit="row") as progress:
        for name, measure in progress:
            progress.set_description(name)
            for result in measure():
                found.append(result)
                tqdm.write("\n".join(result.lines()))
            if _JSON.value:  # After each row, so that an interrupted run leaves its results.
                Path(_JSON.value).expanduser().write_text(_as_json(described, found))
    print(f"\n{table(found)}")
    if _APPEND.value:
        with DOCUMENT.open("a") as file:
            file.write(f"\n## {time.strftime('%Y-%m-%d')}\n\n{head}\n\n{table(found)}\n")


if __name__ == "__main__":
    app.run(main)
