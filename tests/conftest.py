import os
import shutil
import tempfile
from pathlib import Path

from tests.compiler_flags import FLAGS

os.environ.setdefault("XLA_FLAGS", FLAGS)

import jax  # noqa: E402 (the flags come first)
import numpy as np
import pytest

# Four devices on any machine, set before the first use of a device.
jax.config.update("jax_num_cpu_devices", 4)

from jax_stn_icnn.anatomy import NINE, Anatomy  # noqa: E402 (after the flags)
from jax_stn_icnn.compilation import cache  # noqa: E402 (after the flags)

GOLDEN = Path(__file__).parent / "golden"
# The environment variable with the directory of compiled programs. By default it is a temporary
# directory that all processes of one run share; .ci/run sets it to share it between its steps.
SHARED = "JAX_STN_ICNN_TESTS_CACHE"
# The files that take longest, the longest first.
LONGEST = (
    "test_step.py",
    "test_loop.py",
    "test_celebamask_hq.py",
    "test_parser.py",
    "test_pipeline.py",
    "test_programs.py",
)
# The only values that tests take from this package's own cache.
SHAPES = "shapes of variables"
# The original function, for tests of that cache.
find_path = cache._path


def pytest_configure(config):
    """Shares compiled programs, and the shapes of variables, between all tests and processes."""
    if SHARED not in os.environ:
        # The workers of pytest-xdist inherit the environment.
        os.environ[SHARED] = config.shared_programs = tempfile.mkdtemp(prefix="programs-")
    jax.config.update("jax_compilation_cache_dir", os.environ[SHARED])
    # For programs that compile faster, writing a file takes longer than it saves.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    # JAX's cache identifies a program by its operations, this package's cache by its description,
    # which does not change if a test replaces a function. Shapes depend on nothing that tests
    # replace.
    cache._path = lambda name, made_from: find_path(name, made_from) if name == SHAPES else None


def pytest_collection_modifyitems(items):
    """Runs the longest files first, so that all workers end at about the same time."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else 99)


def pytest_unconfigure(config):
    if hasattr(config, "shared_programs"):
        del os.environ[SHARED]
        shutil.rmtree(config.shared_programs, ignore_errors=True)


# Options of a model whose networks compile in a small part of the time.
SMALL = {"coarse_channels": (4, 4), "fine_channels": (4, 4), "interlinks": 1}
# Two brows and two global classes: one fine network, which compiles in a quarter of the time.
BROWS = Anatomy(
    name="brows",
    classes=("background", "skin", "brow_1", "brow_2"),
    parts=tuple(part for part in NINE.parts if part.network == "brow"),
    pairs=(("brow_1", "brow_2"),),
    groups=(),
    colours=((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)),
)


class Golden:
    """The arrays of a golden file; images in this project's order of axes."""

    def __init__(self, name: str):
        self._arrays = np.load(GOLDEN / f"{name}.npz")

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays.files

    def nhwc(self, key: str) -> np.ndarray:
        return np.moveaxis(self._arrays[key], -3, -1)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """Returns all entries `prefix/name` by name."""
        names = [name for name in self._arrays.files if name.startswith(f"{prefix}/")]
        return {name.removeprefix(f"{prefix}/"): self._arrays[name] for name in names}


@pytest.fixture
def golden():
    return Golden


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def small_model(**options):
    """Returns a model of few channels; its options replace those of SMALL."""
    from jax_stn_icnn.models.config import ModelConfig
    from jax_stn_icnn.models.pipeline import STNiCNN

    return STNiCNN(ModelConfig(**{"cropper": "small", "patch_size": 15, **SMALL, **options}))


@pytest.fixture(scope="session")
def small_parser():
    """A parser with random weights, compiled."""
    from jax_stn_icnn.inference.parser import FaceParser

    model = small_model()
    variables = random_variables(model, seed=1)
    parser = FaceParser(variables, model, 64, exact_scores=True, quick_start=False)
    parser(np.zeros((64, 64, 3), np.uint8), detect=False)
    return parser


def random_variables(model, *inputs, seed: int = 0, **arguments):
    """Returns plausible variables of a module without compiling its initializers.

    Args:
        model: The module; of a parser no inputs are needed.
        *inputs: Those of the module's call.
        seed: Of the values.
        **arguments: Keywords of the module's call; `train=False` by default.
    """
    from jax_stn_icnn.models.pipeline import STNiCNN, variable_shapes

    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        kind = path[-1].key
        if kind in ("var", "scale"):
            return rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32)
        fan_in = max(np.prod(leaf.shape[:-1]), 1)
        return (rng.standard_normal(leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    if isinstance(model, STNiCNN):
        shapes = variable_shapes(model)  # found once in all tests: see `pytest_configure`
    else:
        shapes = jax.eval_shape(
            lambda *inputs: model.init(
                jax.random.key(0), *inputs, **({"train": False} | arguments)
            ),
            *inputs,
        )
    return jax.tree_util.tree_map_with_path(fill, shapes)
