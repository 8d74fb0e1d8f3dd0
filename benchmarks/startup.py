"""Time to the first training step, each start in a process of its own, and PyTorch's."""

import statistics
import tempfile

from benchmarks import process
from benchmarks.results import Result
from benchmarks.rows import Settings
from benchmarks.timing import Times

# The drawn faces, but few of them.
FACES = {"train": 32, "validation": 2, "test": 2}
DRAW = f"""
import sys
from pathlib import Path
from tfds_builders.prepare import prepare
from tfds_builders.synthetic_faces.synthetic_faces_dataset_builder import Builder
Builder.SPLIT_SIZES = {FACES}
prepare("synthetic_faces", Path(sys.argv[1]), None, "array_record")
"""


def measure(settings: Settings) -> list[Result]:
    """Seconds from a process's start to the end of its first step: the coarse stage of train.py.

    Without a compilation cache; with an empty one, which this start fills; and with that one.
    """
    seconds: dict[str, list[float]] = {}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        process.run("-c", DRAW, f"{folder}/faces")
        for number in range(1 if settings.quick else 3):
            filled = f"{folder}/cache_{number}"
            ways = {"ours, no cache": "", "ours, new cache": filled, "ours": filled}
            for name, cache in ways.items():
                took = process.ask(
                    *("-m", "benchmarks.first_step"),
                    f"--workdir={folder}/{number} {name}",
                    f"--config.dataset.data_dir={folder}/faces",
                    "--config.dataset.train=train",
                    "--config.dataset.validation=validation",
                    f"--compilation_cache={cache}",
                )
                seconds.setdefault(name, []).append(took)
            try:
                took = process.ask("-m", "benchmarks.torch_child", "first_step")
                seconds.setdefault("torch", []).append(took)
            except ChildProcessError as error:
                absent["torch"] = str(error)
    values = {
        name: Times(statistics.median(took), min(took), max(took)) for name, took in seconds.items()
    }
    title = "first training step after the process's start (ours: warm start)"
    return [Result(title, "s", values, absent)]
