"""Arrows between modules run one way; who may import what is written down here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jax_stn_icnn"

# From the ground up: a folder, or a module by itself, may import only from lines above its own.
LAYERS = (
    "anatomy",
    "checks",
    "compilation",
    "geometry",
    "sampling",
    "data",
    "models",
    "scores",
    "files",
    "photos",
    "train",
)
# Within a folder likewise.
WITHIN = {
    "compilation": ("functions", "memory", "cache"),
    "sampling": ("grid", "lookup", "products", "platforms", "crop", "paste"),
    "data": ("loader", "views", "keys", "augment", "photometric", "occlusion"),
    "models": (
        "functions",
        "folded",
        "conv",
        "norm",
        "attention",
        "bridge",
        "icnn",
        "fine",
        "unet",
        "flip",
        "localizer",
        "pipeline",
    ),
    "scores": ("metrics", "edges", "report", "draw", "evaluation"),
    "files": (
        "weights",
        "convert_torch",
        "network",
        "onnx_graph",
        "onnx_operations",
        "jaxpr_to_onnx",
        "export",
    ),
    "photos": (
        "reading",
        "resample",
        "detectors",
        "faces",
        "photo_parse",
        "stream",
        "parser",
        "settings",
        "sources",
        "folder",
        "results",
        "video",
        "cluster",
        "demo",
        "cli",
    ),
    "train": (
        "losses",
        "consensus",
        "stages",
        "config",
        "signals",
        "state",
        "logs",
        "views",
        "distillation",
        "objective",
        "optim",
        "step",
        "ahead",
        "batches",
        "loop",
    ),
}
# Library -> the modules that may import it.
ONLY_IN = {
    "flax": ("models.", "train.", "files.", "scores.evaluation"),
    "optax": ("train.",),
    "orbax": ("train.",),
    "tensorflow_datasets": ("data.loader",),
    "grain": ("data.loader", "train."),
    "ray": ("photos.cluster",),
    "fsspec": ("photos.cluster",),
    "torch": ("files.convert_torch",),
    "onnx": ("files.",),
    "onnxruntime": ("files.export",),
    "matplotlib": ("scores.draw",),
    "cv2": ("photos.detectors", "photos.resample", "photos.video", "scores.draw", "scores.edges"),
}


def level(module):
    """Where a module stands; None for what is no module."""
    folder, _, name = module.partition(".")
    if folder not in LAYERS or (name and name not in WITHIN.get(folder, ())):
        return None
    return LAYERS.index(folder), WITHIN[folder].index(name) if name else -1


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
    assert level(name) is not None, f"{name} has no place in LAYERS and WITHIN"
    for imported in imports(path):
        own = imported.removeprefix("jax_stn_icnn.")
        if imported.startswith("jax_stn_icnn.") and level(own) is not None and own != name:
            assert level(own) < level(name), f"{name} imports {own}"
        library = imported.split(".")[0]
        if library in ONLY_IN:
            assert name.startswith(ONLY_IN[library]), f"{name} imports {library}"


def test_the_package_shows_a_dozen_names_at_most():
    shown = [path for path in PACKAGE.iterdir() if not path.name.startswith(("_", "."))]
    assert len([path for path in shown if path.name != "py.typed"]) <= 12


def test_anatomy_imports_nothing_of_ours_and_no_library():
    used = {name.split(".")[0] for name in imports(PACKAGE / "anatomy.py")}
    assert used <= {"collections", "dataclasses", "typing"}


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
