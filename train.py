"""Trains STN-iCNN: prepares the data set if it is missing, trains, evaluates and draws.

    python train.py                                  # drawn faces, a short run
    python train.py --config configs/celebamask.py --workdir runs/celebamask \
        --config.dataset.manual_dir=~/Downloads --config.joint.lr_fine=1e-3

The same command resumes a run that was stopped. On several machines, run on each of them:

    python train.py ... --coordinator HOST:PORT --num_processes N --process_id I

Compiled programs are cached in --compilation_cache, so that the next start is fast.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, flags, logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict, config_flags

from jax_stn_icnn.anatomy import DATA_SETS
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train import loop
from jax_stn_icnn.train.arguments import name_unknown_field, parse_flags
from tfds_builders.archive import ArchiveError
from tfds_builders.prepare import PrepareError, prepare

_ROOT = Path(__file__).parent
with name_unknown_field():
    _CONFIG = config_flags.DEFINE_config_file("config", str(_ROOT / "configs/synthetic.py"))
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run; default: runs/<config>.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, with several processes."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Index of this process.")
_COMPILATION_CACHE = flags.DEFINE_string("compilation_cache", None, cache.HELP)


def _prepare(config: ConfigDict) -> None:
    """Prepares the data sets that are missing; one process does, the others wait."""
    dataset = config.dataset
    if jax.process_index() == 0:
        manual_dir = Path(dataset.manual_dir).expanduser() if dataset.manual_dir else None
        data_dir = Path(dataset.data_dir).expanduser()
        framings = {dataset.name: dataset.framing}
        framings |= {source.name: source.framing for source in dataset.sources.values()}
        for name, framing in framings.items():
            framing = framing.partition("_")[0]
            if not framing and name in DATA_SETS:
                framing = DATA_SETS[name].framing
            print(prepare(name, data_dir, manual_dir, "array_record", framing or None))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("data sets prepared")


def _workdir() -> Path:
    if _WORKDIR.value is not None:
        return Path(_WORKDIR.value).expanduser()
    return Path("runs", Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem)


def main(argv: Sequence[str]) -> None:
    """Trains the run of the flags."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    if _COORDINATOR.value is None and (_NUM_PROCESSES.value, _PROCESS_ID.value) != (None, None):
        raise app.UsageError("--num_processes and --process_id need --coordinator, HOST:PORT")
    logging.set_verbosity(logging.WARNING)
    config = _CONFIG.value
    cache.enable_cache(_COMPILATION_CACHE.value)
    try:
        configs.check(config)
        if _COORDINATOR.value is not None:
            jax.config.update("jax_enable_preemption_service", True)
            jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        _prepare(config)
        loop.train_and_evaluate(config, _workdir())
    except loop.Interrupted as stop:
        print(stop)
        sys.exit(143)  # the status of a process that SIGTERM ended
    except (ArchiveError, PrepareError, OSError, ValueError, loop.Diverged) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
