"""Cost of nineteen classes and fitted windows, against nine classes and square windows.

python -m benchmarks.full_face nineteen DIR     # peak memory of parsing one face, in bytes;
                                                 # DIR caches compiled programs
"""

import importlib
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from benchmarks import process, training
from benchmarks.inputs import BATCH, FRAME, random_frames
from benchmarks.results import Result
from benchmarks.rows import MakeRow, Row, Settings
from benchmarks.timing import Times
from jax_stn_icnn import FaceParser
from jax_stn_icnn.anatomy import NINETEEN
from jax_stn_icnn.compilation import cache
from tfds_builders.synthetic_faces.face import draw_face

WEIGHTS = ("nineteen", "nine")


def rows(settings: Settings) -> list[MakeRow]:
    """Returns the parse of a photo of one face by each of the shipped weights."""
    return [_row]


def _row() -> Row:
    calls = {name: _parse_call(name) for name in WEIGHTS}
    row = Row(
        f"parse of a photo, one face, frame {FRAME}, nineteen classes; peer: nine classes",
        {"ours": calls["nineteen"], "nine classes": calls["nine"]},
        None,
    )
    row.add_torch(partial(_bisenet, compiled=False), "BiSeNet, ResNet-18")
    row.add_torch(partial(_bisenet, compiled=True), "BiSeNet, torch.compile")
    return row


def windows(settings: Settings) -> list[MakeRow]:
    """Returns the training steps whose cost depends on the windows."""
    batch = settings.batch(BATCH)
    return [partial(_windows_row, stage, batch) for stage in ("fine", "joint")]


def _windows_row(stage: str, batch: int) -> Row:
    fitted = training.CONFIG.replace(windows="fitted")
    return Row(
        f"{stage} training step, batch {batch}, nine classes, fitted windows; peer: square",
        {
            "ours": training.ours(stage, batch, fitted),
            "square windows": training.ours(stage, batch),
        },
        None,
        images=batch,
    )


def measure(settings: Settings) -> list[Result]:
    """Returns the peak memory of parsing one face, in processes of their own."""
    caches = ("empty cache", "filled cache")
    peaks: dict[str, dict[str, Times]] = {name: {} for name in caches}
    for weights in WEIGHTS:
        with tempfile.TemporaryDirectory() as directory:
            for name in caches:
                peak = process.measure("-m", "benchmarks.full_face", weights, directory)
                peaks[name][weights] = Times.of([peak / 1e6])
    return [
        Result(
            f"peak memory, one face, frame {FRAME}, nineteen classes, {name}",
            "MB",
            {"ours": found["nineteen"], "nine classes": found["nine"]},
            {},
        )
        for name, found in peaks.items()
    ]


def _parse_call(weights: str) -> Callable[[], Any]:
    """Returns a call that parses a photo, a drawn face."""
    parser, photo = FaceParser.load(weights, quick_start=False), draw_face("test", 0, FRAME).image
    return lambda: parser(photo, detect=False)


def _bisenet(peer: ModuleType, compiled: bool) -> Callable[[], Any]:
    """Returns a call of a common face parser in PyTorch; its weights are random."""
    model = importlib.import_module("benchmarks.torch_bisenet").make(NINETEEN.num_classes)
    if compiled:
        model.compile()
    return lambda: model.parse(random_frames(1, FRAME))


def main() -> None:
    """Parses a face several times and reports the peak."""
    cache.enable_cache(sys.argv[2])
    call = _parse_call(sys.argv[1])
    for _ in range(process.MEMORY_STEPS):
        call()
    process.report(process.peak_bytes())


if __name__ == "__main__":
    main()
