"""Runs an experiment: trains and measures its trials, prints a table, and writes its plot, if any.

    python -m experiments.run baseline                   # on two cores, some minutes per trial
    python -m experiments.run ablation --manual_dir DIR_OF_THE_ARCHIVE
    python -m experiments.run ablation --scale full      # for accelerators

Trials, table and plot are written to --workdir. The same command resumes a stopped experiment.
"""

import importlib
import sys
import time
from pathlib import Path

from absl import app, flags, logging

from experiments.scales import SCALES
from experiments.trial import Runner
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.train import loop
from tfds_builders.archive import ArchiveError
from tfds_builders.prepare import PrepareError

NAMES = (
    "baseline",
    "input_size",
    "patch_size",
    "occlusion",
    "transfer",
    "ablation",
    "few_labels",
    "joint_seeds",
    "sources",
)

_SCALE = flags.DEFINE_enum("scale", "small", SCALES, "small for two cores, full for accelerators.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Output directory; by default runs/experiments_<scale>."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", "~/tensorflow_datasets", "Directory of prepared data sets."
)
_MANUAL_DIR = flags.DEFINE_string("manual_dir", None, "Directory of manually downloaded archives.")


def run(name: str, scale: str, runner: Runner) -> str:
    """Runs an experiment.

    Args:
        name: one of NAMES.
        scale: one of SCALES.
        runner: trains and measures the trials.

    Returns:
        The table, in Markdown; also written to the runner's folder.
    """
    experiment = importlib.import_module(f"experiments.{name}")
    trials = experiment.trials(scale)
    for number, trial in enumerate(trials, 1):
        start = time.perf_counter()
        runner.train(trial)
        seconds = time.perf_counter() - start
        print(f"{name} {number}/{len(trials)}: {trial.name} after {seconds:.0f} s", flush=True)
    text: str = experiment.report(scale, runner)
    (runner.folder / f"{name}.md").write_text(text + "\n")
    return text


def main(argv: list[str]) -> None:
    """Runs the command."""
    if len(argv) != 2 or argv[1] not in NAMES:
        raise app.UsageError(f"expected one experiment of {', '.join(NAMES)}; got {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    cache.enable_cache(None)
    folder = Path(_WORKDIR.value or f"runs/experiments_{_SCALE.value}").expanduser()
    manual_dir = Path(_MANUAL_DIR.value).expanduser() if _MANUAL_DIR.value else None
    runner = Runner(folder, Path(_DATA_DIR.value).expanduser(), manual_dir)
    try:
        print(run(argv[1], _SCALE.value, runner))
    except loop.Interrupted as stop:
        print(stop)
        sys.exit(143)
    except (ArchiveError, PrepareError, OSError, ValueError, loop.Diverged) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main)
