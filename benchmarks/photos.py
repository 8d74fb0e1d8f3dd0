"""Throughput of `stn-icnn parse` on a folder of photos, against that of the networks alone.

    python -m benchmarks.photos --dir DIR [--photos 400]

Draws photos of one to four faces, with sides of 512 to 3000 pixels, unless DIR contains them;
parses them with the command; then runs the networks on as many batches of frames in memory. Prints
faces per second of both, their ratio, and the peak memory in each tenth of the time.
"""

import json
import math
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np
import psutil
from absl import app, flags
from PIL import Image
from tqdm import tqdm

from benchmarks.inputs import random_frames
from benchmarks.process import peak_bytes
from jax_stn_icnn import FaceParser
from jax_stn_icnn.cli import main as command
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.inference.parser import BATCH_SIZE
from jax_stn_icnn.inference.programs import parse_program
from tfds_builders.synthetic_faces.face import draw_face

SIDES = 512, 3000  # of a photo's longer side, in pixels
MAX_FACES = 4
TENTHS = 10

flags.DEFINE_string("dir", None, "Folder of the photos; missing photos are drawn.")
_PHOTOS = flags.DEFINE_integer("photos", 400, "Number of photos.")
_BATCH = flags.DEFINE_integer("batch", BATCH_SIZE, "Faces per call of the networks.")


def draw_photo(number: int) -> Image.Image:
    """Draws a photo: faces in one or two rows on a plain background.

    Args:
        number: Number of the photo, the seed of its faces, size and color.

    Returns:
        The photo.
    """
    rng = np.random.default_rng(number)
    long = int(rng.integers(*SIDES, endpoint=True))
    short = int(long * rng.uniform(0.6, 1))
    count = int(rng.integers(1, MAX_FACES, endpoint=True))
    columns, rows = ((1, 1), (2, 1), (2, 2), (2, 2))[count - 1]
    photo = Image.new("RGB", (long, short), tuple(rng.integers(60, 220, 3).tolist()))
    width, height = long // columns, short // rows
    for i in range(count):
        side = int(min(width, height) * rng.uniform(0.7, 0.95))
        image, labels = draw_face("train", MAX_FACES * number + i, side)
        left = (i % columns) * width + int(rng.integers(0, width - side, endpoint=True))
        top = (i // columns) * height + int(rng.integers(0, height - side, endpoint=True))
        photo.paste(
            Image.fromarray(image), (left, top), Image.fromarray(np.uint8(labels > 0) * 255)
        )
    return photo


def draw_photos(folder: Path, count: int) -> None:
    """Draws the photos that the folder does not contain."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(count), unit="photo drawn"):
        path = folder / f"{number:04d}.jpg"
        if not path.exists():
            draw_photo(number).save(path.with_suffix(".partial"), format="JPEG", quality=90)
            path.with_suffix(".partial").rename(path)


def parse_all(folder: Path, out: Path, batch: int) -> tuple[float, list[float]]:
    """Runs the command on a folder; returns its seconds, and samples of the memory in MB."""
    memory, done = [], threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not done.wait(0.05):
            memory.append(process.memory_info().rss / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        status = command.main(["parse", str(folder), "--out", str(out), "--batch", str(batch)])
    finally:
        done.set()
        watcher.join()
    if status:
        raise RuntimeError("the command failed")
    return time.perf_counter() - start, memory


def run_networks(batch: int, count: int) -> tuple[float, float]:
    """Runs the networks on batches in memory; returns the seconds, and those of loading before."""
    start = time.perf_counter()
    parser = FaceParser.load()
    sides = [parser.frame_size]
    if parser.wide:
        sides.append(parser.model.config.coarse_image_size[0])
    frames = [random_frames(batch, side) for side in sides]
    shapes = [array.shape for array in frames]
    program = parse_program(parser.model, parser.variables, *shapes).compile()
    jax.block_until_ready(program(parser.variables, *frames))
    loaded = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(program(parser.variables, *frames))
    return time.perf_counter() - loaded, loaded - start


def main(argv: list[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    folder, batch = Path(flags.FLAGS.dir), _BATCH.value
    draw_photos(folder, _PHOTOS.value)
    cache.enable_cache(None)
    run_networks(batch, 1)  # Compiles, so that no measurement below does.
    count = math.ceil(_PHOTOS.value * (1 + MAX_FACES) / 2 / batch / 2)
    # Half before and half after the command, since the machine's speed changes.
    before, _ = run_networks(batch, count)
    with tempfile.TemporaryDirectory() as out:
        seconds, memory = parse_all(folder, Path(out), batch)
        facts = [json.loads(path.read_text()) for path in Path(out).glob("*.jpg.json")]
    after, loading = run_networks(batch, count)
    networks = 2 * count * batch / (before + after)
    faces = sum(len(photo["faces"]) for photo in facts)
    with_loading = faces / (faces / networks + loading)
    print(f"{len(facts)} photos, {faces} faces, batch {batch}")
    print(f"command   {faces / seconds:8.2f} face/s {len(facts) / seconds:8.2f} photo/s")
    print(f"networks  {networks:8.2f} face/s; command / networks {faces / seconds / networks:.3f}")
    print(
        f"          {with_loading:8.2f} face/s including {loading:.1f} s of loading, as in the "
        f"command; command / networks {faces / seconds / with_loading:.3f}"
    )
    tenths = [f"{part.max():.0f}" for part in np.array_split(memory, TENTHS)]
    print(f"peak memory in each tenth of the time, MB: {' '.join(tenths)}")
    print(f"peak memory of the process, MB: {peak_bytes() / 1e6:.0f}")


if __name__ == "__main__":
    flags.mark_flag_as_required("dir")
    app.run(main)
