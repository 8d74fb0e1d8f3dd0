"""Arrows between modules run one way; who may import what is written down here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jax_stn_icnn"

# From the ground up: a module may import only from layers above its own line.
LAYERS = [
    ["labels"],
    ["checks", "compilation", "photos", "programs", "resample"],
    ["geometry"],
    ["faces", "grid"],
    ["lookup"],
    ["sampling"],
    ["losses", "metrics", "views"],
    ["augment", "models.conv", "models.norm", "occlusion", "report"],
    ["models.icnn", "models.localizer"],
    ["models.pipeline"],
    ["data", "draw", "weights"],
    ["convert_torch", "evaluation", "photo_parse"],
    ["parser"],
    ["cli"],
    ["train.config", "train.signals", "train.state"],
    ["train.logs", "train.objective", "train.optim"],
    ["train.step"],
    ["train.loop"],
]
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}
# Library -> the modules that may import it.
ONLY_IN = {
    "flax": ("models.", "train.", "weights", "convert_torch", "evaluation"),
    "optax": ("train.",),
    "orbax": ("train.",),
    "tensorflow_datasets": ("data",),
    "grain": ("data", "evaluation", "train."),
    "torch": ("convert_torch",),
    "matplotlib": ("draw",),
    "cv2": ("faces", "resample"),
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:  # relative ones stay within their folder
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_imports_run_downwards(name, path):
    assert name in LEVEL, f"{name} has no place in LAYERS"
    for imported in imports(path):
        own = imported.removeprefix("jax_stn_icnn.")
        if imported.startswith("jax_stn_icnn.") and own in LEVEL and own != name:
            assert LEVEL[own] < LEVEL[name], f"{name} imports {own}"
        library = imported.split(".")[0]
        if library in ONLY_IN:
            assert name.startswith(ONLY_IN[library]), f"{name} imports {library}"


def test_labels_import_nothing_of_ours_and_no_library():
    assert set(imports(PACKAGE / "labels.py")) <= {"typing", "typing.NamedTuple"}


def test_builders_import_neither_jax_nor_this_package():
    for path in (ROOT / "tfds_builders").rglob("*.py"):
        for imported in imports(path):
            assert imported.split(".")[0] not in ("jax", "flax", "jax_stn_icnn"), path


def test_only_the_train_step_calls_pmap():
    callers = {name for name, path in modules() if "jax.pmap" in path.read_text()}
    assert callers <= {"train.step"}


def test_a_start_of_training_imports_no_more_than_it_needs():
    late = ("matplotlib", "tensorboardX", "torch", "tensorflow")
    program = f"import sys, train; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
