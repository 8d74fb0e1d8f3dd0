"""What the whole face and fitted windows cost, beside the paper's nine classes and square windows.

python -m benchmarks.whole_face nineteen     # the peak memory of parsing one face, in bytes
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import process, training
from benchmarks.inputs import BATCH, FRAME, PATCH, random_frames
from benchmarks.results import Result
from benchmarks.rows import Row, Settings, parser
from benchmarks.timing import Times
from configs import celebamask, celebamask_whole
from jax_stn_icnn import FaceParser
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.train.config import make_model

CONFIGS = {"nineteen": celebamask_whole.get_config, "nine": celebamask.get_config}


def rows(settings: Settings) -> Iterator[Row]:
    """One face."""
    calls = {name: _parsing(name) for name in CONFIGS}
    yield Row(
        f"one face, frame {FRAME}, nineteen classes; beside nine",
        {"ours": calls["nineteen"], "nine classes": calls["nine"]},
        None,
    )


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
    peaks = {}
    for name in CONFIGS:
        megabytes = process.ask("-m", "benchmarks.whole_face", name) / 1e6
        peaks[name] = Times(megabytes, megabytes, megabytes)
    values = {"ours": peaks["nineteen"], "nine classes": peaks["nine"]}
    return [Result(f"peak memory, one face, frame {FRAME}, nineteen classes", "MB", values, {})]


def _parsing(name: str) -> Callable[[], Any]:
    """Parses a photo that is one face with the networks of a config."""
    model = make_model(CONFIGS[name]())
    model, variables = parser(
        model.patch_size,
        FRAME,
        anatomy=model.anatomy,
        coarse_network=model.coarse_network,
        coarse_channels=model.coarse_channels,
        detail=model.detail,
    )
    face_parser, photo = FaceParser(variables, model, FRAME), random_frames(1, FRAME)[0]
    return lambda: face_parser(photo, detect=False)


def main() -> None:
    """Parses a face some times, and says the peak."""
    call = _parsing(sys.argv[1])
    for _ in range(process.MEMORY_STEPS):
        call()
    process.say(process.peak_bytes())


if __name__ == "__main__":
    main()
