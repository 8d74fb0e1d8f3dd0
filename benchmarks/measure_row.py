"""Measures one row of the table in a process of its own, which no earlier row has slowed down.

python -m benchmarks.measure_row networks 0 '{"quick": true, "dtypes": ["float32"]}'
"""

import dataclasses
import json
import sys
from collections.abc import Callable

from absl import logging

from benchmarks import export, full_face, loader, networks, pipeline, sampler, scaling, training
from benchmarks.machine import measure_peaks
from benchmarks.results import measure
from benchmarks.rows import MakeRow, Settings
from jax_stn_icnn.compilation import cache

BENCHMARKS: dict[str, Callable[[Settings], list[MakeRow]]] = {
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
ROUNDS, DURATION = 7, 0.3


def main() -> None:
    """Prints the result as JSON."""
    name, index, options = sys.argv[1:]
    logging.set_verbosity(logging.WARNING)
    cache.enable_cache(None)  # Calls that compile do not count.
    settings = Settings(**json.loads(options))
    row = BENCHMARKS[name](settings)[int(index)]()
    rounds, duration = (1, 0.0) if settings.quick else (ROUNDS, DURATION)
    result = measure(row, rounds, duration, measure_peaks([row.dtype])[row.dtype])
    print(json.dumps(dataclasses.asdict(result)))


if __name__ == "__main__":
    main()
