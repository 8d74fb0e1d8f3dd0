import os
from pathlib import Path

# What tests prove does not hang on how well the compiler optimises, and compiling is most of their
# time: a third less of it this way. Must be said before JAX is imported.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import jax  # noqa: E402 (the flags come first)
import numpy as np
import pytest

# Four devices on any machine; must be said before anything asks for one.
jax.config.update("jax_num_cpu_devices", 4)

GOLDEN = Path(__file__).parent / "golden"


class Golden:
    """The arrays of one golden file; pictures in this project's order of axes."""

    def __init__(self, name: str):
        self._arrays = np.load(GOLDEN / f"{name}.npz")

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays.files

    def nhwc(self, key: str) -> np.ndarray:
        return np.moveaxis(self._arrays[key], -3, -1)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """All entries `prefix/name`, by name."""
        names = [name for name in self._arrays.files if name.startswith(f"{prefix}/")]
        return {name.removeprefix(f"{prefix}/"): self._arrays[name] for name in names}


@pytest.fixture
def golden():
    return Golden


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def small_parser():
    """A parser that knows nothing, small, compiled."""
    from jax_stn_icnn.models.pipeline import STNiCNN
    from jax_stn_icnn.photos.parser import FaceParser

    inputs = np.zeros((1, 128, 128, 3), np.float32), np.zeros((1, 64, 64, 3), np.float32)
    model = STNiCNN((15, 15), "small", coarse_channels=(4, 4))
    parser = FaceParser(random_variables(model, *inputs, seed=1), model, 64)
    parser(np.zeros((64, 64, 3), np.uint8), detect=False)
    return parser


def random_variables(model, *inputs, seed: int = 0, **arguments):
    """Plausible variables of a module without compiling its initialisers."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        kind = path[-1].key
        if kind in ("var", "scale"):
            return rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32)
        fan_in = max(np.prod(leaf.shape[:-1]), 1)
        return (rng.standard_normal(leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    shapes = jax.eval_shape(
        lambda *inputs: model.init(jax.random.key(0), *inputs, **({"train": False} | arguments)),
        *inputs,
    )
    return jax.tree_util.tree_map_with_path(fill, shapes)
