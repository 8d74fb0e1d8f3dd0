"""Kills commands at random moments, and compares their final files with those of undisturbed ones.

    python -m benchmarks.interruptions --training 100 --preparation 50 --parsing 50

A command runs again in the same folder until it ends by itself; it is killed by SIGKILL that many
times in all. A traceback, a failure or a file that differs ends the script.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from tqdm import tqdm

from benchmarks.process import ROOT
from configs import common
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.io.weights import save_weights
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN, init_variables
from tests.compiler_flags import FLAGS

DATA_SET = "rectangles"
SPLITS = {"train": 12, "validation": 4, "test": 4}
SIZE = 32
# The networks with the fewest channels, and one fine network for each kind of part.
MODEL: dict[str, Any] = {
    "cropper": "centroid",
    "patch_size": 9,
    "coarse_channels": (4, 4),
    "coarse_size": 32,
    "fine_channels": (4, 4),
    "interlinks": 1,
}
TIMES = ("faces_per_second", "loader_share")  # numbers of a log that are times
TIMED_FOLDERS = ("tensorboard", "checkpoints")  # whose files contain times

# Programs that compile fast, which the first run of each command caches.
ENVIRONMENT = os.environ | {"XLA_FLAGS": FLAGS}

Files = dict[str, object]


class Command(NamedTuple):
    """A command that is killed.

    Attributes:
        arguments: Returns the arguments of the Python interpreter, given the output folder.
        read: Returns the final files of an output folder.
    """

    arguments: Callable[[Path], list[str]]
    read: Callable[[Path], Files]


def get_config() -> ConfigDict:
    """Returns the config of the training, which `train.py` reads from this file."""
    config = common.get_config()
    config.model.update(MODEL)
    config.dataset.name, config.dataset.frame_size = DATA_SET, SIZE
    config.dataset.framing = "resize"
    config.batch_size = config.eval_batch_size = 4
    config.stages = ("coarse", "fine")
    config.coarse.epochs = config.fine.epochs = 2
    config.checkpoint_every_steps = config.validation_images = 1
    return config


def draw_folder(parent: Path) -> None:
    """Writes images of rectangles and their masks, as `tfds_builders.image_folder` reads them."""
    rng = np.random.default_rng(0)
    folder = parent / DATA_SET
    for split, count in SPLITS.items():
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(count):
            mask = np.zeros((SIZE, SIZE), np.uint8)
            for label in range(1, NINE.num_classes):
                y, x = rng.integers(0, SIZE - 8, 2)
                mask[y : y + 8, x : x + 8] = label
            noise = rng.integers(0, 25, (SIZE, SIZE, 3), dtype=np.uint8)
            image = Image.fromarray(25 * mask[..., None] + noise)
            image.save(folder / "images" / split / f"{index}.png")
            Image.fromarray(mask).save(folder / "masks" / split / f"{index}.png")
    (folder / "classes.txt").write_text("\n".join(NINE.classes))


def make_commands(folder: Path) -> dict[str, Command]:
    """Returns the commands, whose inputs are written into a folder."""
    draw_folder(folder)
    model = STNiCNN(ModelConfig.from_dict(MODEL))
    weights = folder / "small.safetensors"
    save_weights(weights, init_variables(model, 0), model.config, SIZE)
    photos = folder / DATA_SET / "images" / "train"
    prepared = folder / "prepared"

    def prepare(out: Path) -> list[str]:
        flags = [f"--manual_dir={folder}", f"--data_dir={out}"]
        return ["-m", "tfds_builders.prepare", DATA_SET, *flags]

    def train(out: Path) -> list[str]:
        flags = [f"--workdir={out}", f"--config.dataset.data_dir={prepared}"]
        return ["train.py", f"--config={ROOT}/benchmarks/interruptions.py", *flags]

    def parse(out: Path) -> list[str]:
        options = ["--out", str(out), "--ckpt", str(weights), "--no-detect"]
        return ["-m", "jax_stn_icnn.cli.main", "parse", str(photos), *options, "--masks", "nose"]

    run(prepare(prepared))
    return {
        "training": Command(train, read_run),
        "preparation": Command(prepare, read_files),
        "parsing": Command(parse, read_files),
    }


def read_files(folder: Path) -> Files:
    """Returns name -> bytes of the files of a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def read_run(folder: Path) -> Files:
    """Returns the files of a run without its times, and the names of its checkpoints."""
    files: Files = {
        name: content
        for name, content in read_files(folder).items()
        if not name.startswith(TIMED_FOLDERS)
    }
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    for line, record in enumerate(map(json.loads, lines)):
        files[f"metrics.jsonl:{line}"] = {k: v for k, v in record.items() if k not in TIMES}
    report = json.loads((folder / "test.json").read_text())
    files["test.json"] = {k: v for k, v in report.items() if k not in TIMES}
    # A killed run may have older ones, too, which its next checkpoint would have removed.
    files["checkpoints"] = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    del files["metrics.jsonl"]
    return files


def run(arguments: Sequence[str], seconds: float | None = None) -> bool:
    """Runs a Python process, and kills it after some seconds.

    Args:
        arguments: Arguments of the Python interpreter.
        seconds: When to kill it; None if never.

    Returns:
        Whether it ended by itself.

    Raises:
        ChildProcessError: It failed, or printed a traceback.
    """
    # A file, since a pipe would wait for the children of a killed process.
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        killed = process.wait() < 0
        output.seek(0)
        text = output.read()
    if "Traceback" in text or (process.returncode and not killed):
        raise ChildProcessError(f"{' '.join(arguments)} failed:\n{text}")
    return not killed


def measure(command: Command, out: Path) -> tuple[float, float]:
    """Runs a command undisturbed; returns when it first writes and when it ends, in seconds."""
    start = time.perf_counter()
    with ThreadPoolExecutor(1) as executor:
        ended = executor.submit(run, command.arguments(out))
        while not out.exists() and not ended.done():
            time.sleep(0.01)
        first = time.perf_counter() - start
        ended.result()
    return first, time.perf_counter() - start


def interrupt(command: Command, folder: Path, seed: int, bar: "tqdm[Any]") -> str:
    """Kills a command as often as the bar is long, checks the final files, and describes them."""
    kills = bar.total
    chance = random.Random(seed)
    run(command.arguments(folder / "first"))  # compiles, so that the next run is like later ones
    first, last = measure(command, folder / "undisturbed")
    expected = command.read(folder / "undisturbed")
    share = first / last  # of the time in which nothing is written
    killed = runs = 0
    while killed < kills:
        out = folder / f"killed_{runs}"
        ended = False
        while not ended:
            moment = last * chance.uniform(share, 1) if killed < kills else None
            start = time.perf_counter()
            ended = run(command.arguments(out), moment)
            killed += not ended
            bar.update(not ended)
            if ended and moment is not None:  # faster than the undisturbed command was
                last = min(last, time.perf_counter() - start)
        found = command.read(out)
        different = [k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)]
        if different:
            raise ValueError(f"{out}: {', '.join(sorted(different))} differ after {killed} kills")
        runs += 1
    return (
        f"{killed} kills in the last {1 - share:.0%} of a command's time, in {runs} folders; "
        f"{len(expected)} final files equal those of an undisturbed command"
    )


def main() -> None:
    """Runs the command."""
    arguments = argparse.ArgumentParser(description=__doc__)
    for name in ("training", "preparation", "parsing"):
        arguments.add_argument(f"--{name}", type=int, default=0, help="number of kills")
    arguments.add_argument("--seed", type=int, default=0, help="seed of the moments")
    args = vars(arguments.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        for name, command in make_commands(Path(folder)).items():
            if args[name]:
                with tqdm(total=args[name], desc=name, unit="kill") as bar:
                    line = interrupt(command, Path(folder, name), args["seed"], bar)
                print(f"{name}: {line}", flush=True)


if __name__ == "__main__":
    main()
