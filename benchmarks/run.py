"""Measures speed and memory of this project and of its peers, and prints a table.

    python -m benchmarks.run                                  # all benchmarks but scaling
    python -m benchmarks.run --only sampler,pipeline --json found.json --append
    python -m benchmarks.run --only scaling                   # cost by batch, frame and devices
    python -m benchmarks.run --quick                          # small batches, to check that it runs

docs/performance.md describes the measurements; --append adds the table to
docs/notes/2026-11/performance_tables.md.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from benchmarks import (
    export,
    full_face,
    loader,
    machine,
    memory,
    networks,
    pipeline,
    sampler,
    scaling,
    startup,
    training,
)
from benchmarks.results import Result, measure, table
from benchmarks.rows import Row, Settings
from benchmarks.timing import Peak, measure_peak
from jax_stn_icnn.compilation import cache

DOCUMENT = Path(__file__).parents[1] / "docs/notes/2026-11/performance_tables.md"
# Benchmarks timed in this process, and those measured in processes of their own.
TIMED: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "sampler": sampler.rows,
    "networks": networks.rows,
    "training": training.rows,
    "pipeline": pipeline.rows,
    "loader": loader.rows,
    "full_face": full_face.rows,
    "windows": full_face.windows,
    "export": export.rows,
    "scaling": scaling.rows,
}
SEPARATE: dict[str, Callable[[Settings], list[Result]]] = {
    "startup": startup.measure,
    "memory": memory.measure,
    "full_face": full_face.measure,
    "scaling": scaling.measure,
}
NAMES = tuple(dict.fromkeys([*TIMED, *SEPARATE]))

_ONLY = flags.DEFINE_list(
    "only", None, f"Benchmarks to run, of {', '.join(NAMES)}; all but scaling by default."
)
_JSON = flags.DEFINE_string("json", None, "File that the results are written to.")
_APPEND = flags.DEFINE_bool("append", False, f"Append the table to {DOCUMENT.name}.")
_QUICK = flags.DEFINE_bool("quick", False, "Small batches and one round, to check that it runs.")


def _results(names: Sequence[str], settings: Settings, peaks: dict[str, Peak]) -> Iterator[Result]:
    rounds, duration = (1, 0.0) if settings.quick else (7, 0.3)
    for name in names:
        for row in TIMED[name](settings) if name in TIMED else ():
            yield measure(row, rounds, duration, peaks[row.dtype])
        if name in SEPARATE:
            yield from SEPARATE[name](settings)


def _head(described: dict[str, str], peaks: dict[str, Peak]) -> str:
    """Returns a line with the machine, and a line with its peak performance."""
    performance = ", ".join(
        f"{peak.operations / 1e9:.0f} GFLOP/s in a matrix product of {dtype}"
        for dtype, peak in peaks.items()
    )
    bandwidth = f"{peaks['float32'].bytes / 1e9:.1f} GB/s in a copy"
    words = ", ".join(f"{name} {value}" for name, value in described.items())
    return f"{words}.\n\nPeak: {performance}, {bandwidth}."


def _as_json(described: dict[str, str], peaks: dict[str, Peak], found: list[Result]) -> str:
    content: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": described,
        "peaks": {dtype: peak._asdict() for dtype, peak in peaks.items()},
        "results": [dataclasses.asdict(result) for result in found],
    }
    return json.dumps(content, indent=2) + "\n"


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    cache.enable_cache(None)  # Only `startup` measures compilation, in caches of its own.
    names = _ONLY.value or [name for name in NAMES if name != "scaling"]
    if unknown := [name for name in names if name not in NAMES]:
        raise app.UsageError(f"--only is {', '.join(unknown)}, but must be some of {NAMES}")
    dtypes = ("float32",) if jax.default_backend() == "cpu" else ("float32", "bfloat16")
    settings = Settings(_QUICK.value, dtypes)
    described = machine.describe()
    side = 2048 if jax.default_backend() == "cpu" else 8192
    peaks = {dtype: measure_peak(dtype, 5, side) for dtype in dtypes}
    head = _head(described, peaks)
    print(head, flush=True)
    found = []
    for result in _results(names, settings, peaks):
        found.append(result)
        print("\n".join(result.lines()), flush=True)
        if _JSON.value:  # After each row, so that an interrupted run leaves its results.
            Path(_JSON.value).expanduser().write_text(_as_json(described, peaks, found))
    print(f"\n{table(found)}")
    if _APPEND.value:
        with DOCUMENT.open("a") as file:
            file.write(f"\n## {time.strftime('%Y-%m-%d')}\n\n{head}\n\n{table(found)}\n")


if __name__ == "__main__":
    app.run(main)
