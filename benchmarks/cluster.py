"""Photos per second of `stn-icnn parse`: in one process, and on a Ray cluster of two nodes here.

    python -m benchmarks.cluster --photos 2000

Both parse the same photos by turns, half of them in each of two rounds, after a run of few photos
that fills the cache of programs and gives the time to start. Needs the extra `ray`.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from PIL import Image

from benchmarks import process
from tfds_builders.synthetic_faces.face import draw_face

ROUNDS = 2
DISTINCT = 40  # drawn faces; the photos are copies of these
SIDE = 512
FEW = 8  # photos whose time is that of the start

_PHOTOS = flags.DEFINE_integer("photos", 2000, "Number of photos.", lower_bound=2 * DISTINCT)


def main(argv: Sequence[str]) -> None:
    """Prints the seconds of each run, and the photos per second."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(process.ROOT)  # The nodes import the package that is measured.
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    options: dict[str, list[str]] = {"one process": [], "two nodes": ["--ray", nodes.address]}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        count = _PHOTOS.value // ROUNDS
        _write_photos(folder / "few", FEW)
        _write_photos(folder / "photos", count)
        for name, option in options.items():
            _seconds(folder, "few", f"{name} warm", option)
            print(
                f"{name}: {_seconds(folder, 'few', f'{name} few', option):.1f} s for {FEW} photos"
            )
        seconds = dict.fromkeys(options, 0.0)
        for number in range(ROUNDS):
            for name, option in options.items():
                took = _seconds(folder, "photos", f"{name} {number}", option)
                print(f"{name}: {took:.1f} s for {count} photos", flush=True)
                seconds[name] += took
    nodes.shutdown()
    for name, total in seconds.items():
        print(f"{name}: {ROUNDS * count / total:.2f} photos per second")
    print(f"two nodes / one process: {seconds['one process'] / seconds['two nodes']:.2f}")


def _write_photos(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        if number < DISTINCT:
            Image.fromarray(draw_face("test", number, SIDE).image).save(path)
        else:
            path.write_bytes((folder / f"{number % DISTINCT:05}.jpg").read_bytes())


def _seconds(folder: Path, photos: str, out: str, options: Sequence[str]) -> float:
    """Returns the seconds of a command that parses a folder of photos into a new one."""
    command = ["-m", "jax_stn_icnn.cli.main", "parse", str(folder / photos), *options]
    start = time.perf_counter()
    process.run(*command, "--out", str(folder / out.replace(" ", "_")))
    return time.perf_counter() - start


if __name__ == "__main__":
    app.run(main)
