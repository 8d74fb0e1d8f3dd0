"""Several processes that share a folder or a run."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from archives import read_tree
from conftest import SHARED, random_variables, small_model
from PIL import Image
from test_state import make_iterator, make_state

from jax_stn_icnn.io import weights
from jax_stn_icnn.train.checkpoints import CHECKPOINTS, Checkpoints

ROOT = Path(__file__).parent.parent

# Each process imports the package and compiles.
pytestmark = pytest.mark.slow


def run(*commands):
    """Runs Python processes at the same time; returns what each prints, if all succeed."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": os.environ[SHARED]}
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for command in commands
    ]
    try:
        results = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    errors = "\n".join(error for _, error in results)
    assert [process.returncode for process in processes] == [0] * len(commands), errors
    assert "Traceback" not in errors
    return [output for output, _ in results]


def test_two_parses_into_one_folder_write_what_one_writes(tmp_path):
    model = small_model()
    ckpt, photos = tmp_path / "small.safetensors", tmp_path / "photos"
    weights.save_weights(ckpt, random_variables(model), model.config, 64)
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        image = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(image).save(photos / f"{number:02d}.png")
    # Of one photo, so that no value depends on the photos that share its batch.
    options = ["--ckpt", ckpt, "--no-detect", "--masks", "nose", "--batch", "1"]

    def parse(out):
        return ["-m", "jax_stn_icnn.cli.main", "parse", photos, "--out", out, *options]

    run(parse(tmp_path / "one"))
    outputs = run(*[parse(tmp_path / "two")] * 2)
    assert all(" 0 failed" in output for output in outputs)
    # Both had something to do.
    assert not any("20 already done" in output for output in outputs)
    assert read_tree(tmp_path / "two") == read_tree(tmp_path / "one")


RESTORE = """
import json, sys
sys.path[:0] = ["tests"]
import jax
import numpy as np
from pathlib import Path
from test_state import make_iterator, make_state
from jax_stn_icnn.train.checkpoints import Checkpoints

address, index, workdir = sys.argv[1:]
jax.distributed.initialize(address, 2, int(index))
checkpoints, iterator = Checkpoints(Path(workdir)), make_iterator()
removed = checkpoints.remove_damaged()
step = checkpoints.latest_step
state = checkpoints.restore(step, make_state(0))
jax.tree.map(np.testing.assert_array_equal, state, make_state(step))
checkpoints.save(make_state(step + 1), iterator, {}, 1)
checkpoints.wait()
print(json.dumps([len(removed), step, checkpoints.latest_step]))
checkpoints.close()
"""


@pytest.mark.parametrize("damaged", ["state/_METADATA", "_CHECKPOINT_METADATA"])
def test_all_processes_restore_the_same_checkpoint(damaged, tmp_path):
    checkpoints, iterator = Checkpoints(tmp_path), make_iterator()
    for step in (3, 4):
        checkpoints.save(make_state(step), iterator, {}, step)
    checkpoints.close()
    (tmp_path / CHECKPOINTS / "4" / damaged).write_bytes(b"9" * 5000)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    outputs = run(*(["-c", RESTORE, address, index, tmp_path] for index in (0, 1)))
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    expected = [1, 3, 4] if damaged.startswith("state") else [0, 4, 5]
    assert found == [expected] * 2
