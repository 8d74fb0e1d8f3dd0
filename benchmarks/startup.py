"""Time to the first training step and to the first parse, each start in a process of its own."""

import statistics
import tempfile
from collections.abc import Callable

from benchmarks import process
from benchmarks.results import Result
from benchmarks.rows import Settings
from benchmarks.timing import Times

BISENET = "BiSeNet, ResNet-18"
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
    """Seconds from a process's start to the end of its first step, and of its first parse.

    Without a compilation cache; with an empty one, which this start fills; and with that one. The
    step is the coarse stage's of train.py; a parse is of a photo, its face yet to be found.
    """
    with tempfile.TemporaryDirectory() as folder:
        process.run("-c", DRAW, f"{folder}/faces")

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
    peers: str,
    peer: str,
    folder: str,
    rounds: int,
) -> Result:
    """Asks ours, in each of its ways, and the peer, round after round."""
    seconds: dict[str, list[float]] = {}
    absent: dict[str, str] = {}
    for number in range(rounds):
        filled = f"{folder}/{peers}_{number}"
        ways = {"ours, no cache": "", "ours, new cache": filled, "ours": filled}
        for name, cache in ways.items():
            seconds.setdefault(name, []).append(process.ask(*arguments(f"{number} {name}", cache)))
        try:
            took = process.ask("-m", "benchmarks.torch_child", peers)
            seconds.setdefault(peer, []).append(took)
        except ChildProcessError as error:
            absent[peer] = str(error)
    values = {
        name: Times(statistics.median(took), min(took), max(took)) for name, took in seconds.items()
    }
    return Result(f"{what} after the process's start (ours: warm start)", "s", values, absent)
