"""A parse needs only what the base installation requires; pyproject.toml lists it."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import SHARED
from PIL import Image

from jax_stn_icnn.io.weights import save_weights

# Libraries of the extras, and those that Flax requires but a parse does not use.
UNUSED = {
    "array_record",
    "chex",
    "grain",
    "joblib",
    "matplotlib",
    "ml_collections",
    "optax",
    "orbax",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
    "tensorstore",
}
PROGRAM = """
import sys

from jax_stn_icnn import FaceParser
from jax_stn_icnn.cli import main

weights, photo, out = sys.argv[1:]
parse = FaceParser.load(weights)(photo, detect=False)
parse.mask("nose")
parse.overlay(legend=True)
assert main.main(["parse", photo, "--out", out, "--ckpt", weights]) == 0
print(*{name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.slow
def test_a_parse_imports_no_library_of_training(small_parser, tmp_path):
    weights, photo, out = tmp_path / "w.safetensors", tmp_path / "photo.png", tmp_path / "out"
    save_weights(weights, small_parser.variables, small_parser.model.config, 64)
    Image.fromarray(np.full((64, 64, 3), 127, np.uint8)).save(photo)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, weights, photo, out],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": os.environ[SHARED]},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    imported = set(done.stdout.splitlines()[-1].split())
    assert {"jax", "flax", "cv2"} <= imported
    assert not imported & UNUSED
    assert (out / "photo.png.labels.png").is_file()
