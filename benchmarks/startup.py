"""Time from a process's start to its first training step and to its first parse."""

import statistics
import tempfile
from collections.abc import Callable

from benchmarks import process
from benchmarks.results import Result
from benchmarks.rows import Settings
from benchmarks.timing import Times

BISENET = "BiSeNet, ResNet-18"
# Few drawn faces, which are prepared in seconds.
FACES = {"train": 32, "validation": 2, "test": 2}
PREPARE = f"""
import sys
from pathlib import Path
from tfds_builders.prepare import prepare
from tfds_builders.synthetic_faces.synthetic_faces_dataset_builder import Builder
Builder.SPLIT_SIZES = {FACES}
prepare("synthetic_faces", Path(sys.argv[1]), None, "array_record")
"""


def measure(settings: Settings) -> list[Result]:
    """Returns the seconds from a process's start to the end of its first step and first parse.

    Three starts are measured: without a compilation cache, with an empty one, which this start
    fills, and with the filled one. The step is that of the coarse stage of train.py; the parse
    includes face detection.
    """
    with tempfile.TemporaryDirectory() as folder:
        process.run("-c", PREPARE, f"{folder}/faces")

        def step(start: str, cache: str) -> list[str]:
            return [
                *("-m", "benchmarks.first_step"),
                f"--workdir={folder}/{start}",
                f"--config.dataset.data_dir={folder}/faces",
                "--config.dataset.train=train",
                "--config.dataset.validation=validation",
                f"--compilation_cache={cache}",
            ]

        def parse(start: str, cache: str) -> list[str]:
            return ["-m", "benchmarks.first_parse", cache]

        rounds = 1 if settings.quick else 3
        return [
            _starts("first training step", step, "first_step", "torch", folder, rounds),
            _starts("first parse of a photo", parse, "first_parse", BISENET, folder, rounds),
        ]


def _starts(
    what: str,
    arguments: Callable[[str, str], list[str]],
    peer_task: str,
    peer: str,
    folder: str,
    rounds: int,
) -> Result:
    """Returns median, minimum and maximum of the three starts and the peer's, run alternately."""
    seconds: dict[str, list[float]] = {}
    unavailable: dict[str, str] = {}
    for number in range(rounds):
        directory = f"{folder}/{peer_task}_{number}"
        caches = {"ours, no cache": "", "ours, new cache": directory, "ours": directory}
        for name, cache in caches.items():
            took = process.measure(*arguments(f"{number} {name}", cache))
            seconds.setdefault(name, []).append(took)
        try:
            took = process.measure("-m", "benchmarks.torch_child", peer_task)
            seconds.setdefault(peer, []).append(took)
        except ChildProcessError as error:
            unavailable[peer] = str(error)
    values = {
        name: Times(statistics.median(took), min(took), max(took)) for name, took in seconds.items()
    }
    title = f"{what} after the process's start (ours: filled cache)"
    return Result(title, "s", values, unavailable)
