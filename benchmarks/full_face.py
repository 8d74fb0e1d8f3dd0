"""What the whole face and fitted windows cost, beside the paper's nine classes and square windows.

python -m benchmarks.full_face nineteen DIR     # the peak memory of parsing one face, in bytes,
                                                 # compiled programs being cached in DIR
"""

import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from benchmarks import process, training
from benchmarks.inputs import BATCH, FRAME, PATCH, random_frames
from benchmarks.results import Result
from benchmarks.rows import Row, Settings
from benchmarks.timing import Times
from jax_stn_icnn import FaceParser
from jax_stn_icnn.anatomy import NINE, NINETEEN
from jax_stn_icnn.compilation import cache
from tfds_builders.synthetic_faces.face import draw_face

NAMES = ("nineteen", "nine")


def rows(settings: Settings) -> Iterator[Row]:
    """One face."""
    calls = {name: _parsing(name) for name in NAMES}
    row = Row(
        f"one face, frame {FRAME}, nineteen classes; beside nine",
        {"ours": calls["nineteen"], "nine classes": calls["nine"]},
        None,
    )
    row.add_torch(_bisenet, "BiSeNet, ResNet-18")
    yield row


def windows(settings: Settings) -> Iterator[Row]:
    """Training steps whose cost the windows decide."""
    batch = settings.batch(BATCH)
    for stage in ("fine", "joint"):
        yield Row(
            f"{stage} training step, batch {batch}, nine classes, fitted windows; beside square",
            {
                "ours": training.ours(stage, batch, patch_size=NINE.fitted_sizes(PATCH)),
                "square windows": training.ours(stage, batch),
            },
            None,
            images=batch,
        )


def measure(settings: Settings) -> list[Result]:
    """The peak memory of parsing one face, in processes of their own."""
    peaks: dict[str, dict[str, Times]] = {"compiled then": {}, "compiled before": {}}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as directory:
            for when in peaks:
                asked = process.ask("-m", "benchmarks.full_face", name, directory)
                peaks[when][name] = Times(*[asked / 1e6] * 3)
    return [
        Result(
            f"peak memory, one face, frame {FRAME}, nineteen classes, {when}",
            "MB",
            {"ours": found["nineteen"], "nine classes": found["nine"]},
            {},
        )
        for when, found in peaks.items()
    ]


def _parsing(name: str) -> Callable[[], Any]:
    """Parses a photo that is one face, drawn, by weights that ship."""
    face_parser, photo = FaceParser.load(name), draw_face("test", 0, FRAME).image
    return lambda: face_parser(photo, detect=False)


def _bisenet(peer: ModuleType) -> Callable[[], Any]:
    """What people install for it, in PyTorch; random weights take as long as others."""
    model = importlib.import_module("benchmarks.torch_bisenet").make(NINETEEN.num_classes)
    return lambda: model.parse(random_frames(1, FRAME))


def main() -> None:
    """Parses a face some times, and says the peak."""
    cache.enable_cache(sys.argv[2])
    call = _parsing(sys.argv[1])
    for _ in range(process.MEMORY_STEPS):
        call()
    process.say(process.peak_bytes())


if __name__ == "__main__":
    main()
