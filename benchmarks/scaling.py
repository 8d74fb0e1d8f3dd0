"""Cost by the size of the batch, the size of the frame, and the number of devices.

python -m benchmarks.scaling 4 16      # seconds of a coarse step of 16 faces on 4 devices
"""

import statistics
import sys
import time
from functools import partial

import jax

from benchmarks import pipeline, process, training
from benchmarks.inputs import BATCH
from benchmarks.results import Result
from benchmarks.rows import MakeRow, Settings
from benchmarks.timing import Times
from jax_stn_icnn.models.config import ModelConfig

BATCHES = (1, 2, 4, 8, 16, 32, 64)
FRAMES = (256, 384, 512, 768, 1024)
DEVICES = (1, 2, 4)
CONFIG = ModelConfig(patch_size=81)
STEPS = 5


def rows(settings: Settings) -> list[MakeRow]:
    """Returns the pipeline for growing batches of small frames, and for growing frames."""
    batches = BATCHES[:2] if settings.quick else BATCHES
    sizes = [(batch, FRAMES[0]) for batch in batches] + [(1, frame) for frame in FRAMES[1:]]
    return [partial(pipeline.row, batch, frame, CONFIG) for batch, frame in sizes]


def measure(settings: Settings) -> list[Result]:
    """Returns a coarse step of one batch over simulated devices, which measures the overhead."""
    batch = 4 if settings.quick else BATCH
    values: dict[str, Times] = {}
    for count in DEVICES:
        seconds = process.measure("-m", "benchmarks.scaling", str(count), str(batch))
        values["ours" if count == 1 else f"{count} devices"] = Times.of([1e3 * seconds])
    name = f"coarse training step, batch {batch}, over simulated devices (ours: one)"
    return [Result(name, "ms", values, {})]


def main() -> None:
    """Reports the median of some steps."""
    count, batch = map(int, sys.argv[1:])
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)
    call = training.ours("coarse", batch, devices=jax.devices())
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    process.report(statistics.median(seconds))


if __name__ == "__main__":
    main()
