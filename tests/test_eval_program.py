"""The program `eval.py` on a data set whose labels are sets of classes.

It runs as a process of its own, since other tests define flags of the same names.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import folders
import numpy as np
import pytest
from conftest import BROWS, random_variables, small_model
from PIL import Image

from jax_stn_icnn.io.weights import save_weights

ROOT = Path(__file__).parent.parent
CONFIG = """
import sys

sys.path[:0] = [{root!r}, {tests!r}]
from conftest import BROWS
from configs import common
from jax_stn_icnn import anatomy

anatomy.register(BROWS)


def get_config():
    config = common.get_config()
    config.model.update({model!r})
    config.stages = ("coarse",)
    config.dataset.frame_size = 32
    config.dataset.data_dir = {data_dir!r}
    return config
"""
UNION = "background+brow_1+brow_2"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Returns a command that evaluates random weights on faces whose skin is labelled."""
    folder = tmp_path_factory.mktemp("eval")
    mask = folders.masks(lambda ids: np.uint8(ids == 1))
    folders.build(folder, {**mask, "classes.txt": f"{UNION}\nskin\n".encode()}, "skins")
    options = {"cropper": "centroid", "patch_size": 9, "coarse_size": 32}
    model = small_model(anatomy=BROWS, **options)
    save_weights(folder / "w.safetensors", random_variables(model, seed=1), model.config, 32)
    settings = model.config.to_dict() | {"anatomy": "brows"}
    config = CONFIG.format(
        root=str(ROOT), tests=str(ROOT / "tests"), model=settings, data_dir=str(folder / "data")
    )
    (folder / "config.py").write_text(config)
    flags = {"ckpt": folder / "w.safetensors", "config": folder / "config.py", "dataset": "skins"}
    return [sys.executable, "eval.py", *(f"--{name}={value}" for name, value in flags.items())]


def run(command, *flags):
    return subprocess.run([*command, *flags], cwd=ROOT, env=os.environ, capture_output=True)


@pytest.mark.slow
def test_another_data_set_is_scored_and_drawn_by_its_labels(command, tmp_path):
    scores, pictures = tmp_path / "scores.json", tmp_path / "pictures"
    flags = ["--split=train", "--framing=resize", f"--json={scores}", f"--pictures={pictures}"]
    done = run(command, *flags)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(scores.read_text())
    assert found["images"] == 3
    assert found["f1_by_union"].keys() == {"all but skin"}
    assert 0 < found["f1_by_class"]["skin"] < 1 and found["f1_by_class"]["brow_1"] is None
    assert found["f1"]["mean_of_eight"] is None
    assert "all but skin" in done.stdout.decode()
    for name in ("worst", "best", "random", "confusion"):
        with Image.open(pictures / f"{name}.png") as picture:
            picture.verify()


@pytest.mark.slow
def test_true_windows_need_labels_of_the_parts(command):
    done = run(command, "--framing=resize", "--true_centres")
    assert done.returncode == 1
    message = "--true_centres needs labels of each part, but 'skins' does not label brow_1, brow_2"
    assert f"error: {message}" in done.stderr.decode()
