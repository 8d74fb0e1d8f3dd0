"""Arrows between modules run one way; who may import what is written down here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jax_stn_icnn"

# From the bottom up: a package or a module of the root imports only from lines above its own.
LAYERS = (
    "anatomy",
    "label_sets",
    "checks",
    "atomic",
    "compilation",
    "geometry",
    "wide_frame",
    "ops",
    "photos",
    "faces",
    "models",
    "data",
    "evaluation",
    "io",
    "inference",
    "train",
    "cli",
)
# Within a package likewise.
WITHIN = {
    "compilation": ("source", "inlining", "compile", "program", "entries", "cache"),
    "ops": (
        "platform",
        "space_to_depth",
        "grid",
        "gather",
        "matmul",
        "crop",
        "resize",
        "paste_matmul",
        "paste",
        "convolution",
        "strided",
        "depthwise",
        "halving",
        "pooling",
        "smoothing",
    ),
    "photos": ("colour", "metadata", "reading", "files", "video"),
    "faces": ("resample", "framing", "yunet", "search", "detectors", "owners"),
    "models": (
        "config",
        "image_by_image",
        "outlining",
        "layers",
        "attention",
        "bridge",
        "icnn",
        "fine",
        "coarse",
        "unet",
        "efficientnet",
        "feature_pyramid",
        "encoder_network",
        "flip_test",
        "wide",
        "localizer",
        "channel_names",
        "pipeline",
        "prepared",
    ),
    "data": (
        "source",
        "prepared",
        "stored",
        "framing",
        "examples",
        "opening",
        "rare",
        "copy_paste",
        "order",
        "loader",
        "keys",
        "config",
        "augment",
        "photometric",
        "occlusion",
        "inputs",
        "face_folder",
    ),
    "evaluation": ("metrics", "boundaries", "report", "draw", "evaluator"),
    "io": (
        "weights",
        "convert_torch",
        "torch_file",
        "efficientnet",
        "network",
        "onnx_graph",
        "onnx_operations",
        "jaxpr_to_onnx",
        "export",
    ),
    "inference": (
        "compact",
        "resampling",
        "pixels",
        "soft_masks",
        "polygons",
        "masks",
        "results",
        "coco",
        "merging",
        "threads",
        "devices",
        "programs",
        "turning",
        "extension",
        "locating",
        "temporal",
        "tracking",
        "reading",
        "finishing",
        "batching",
        "parser",
    ),
    "train": (
        "losses",
        "consensus",
        "stages",
        "config",
        "arguments",
        "signals",
        "state",
        "transfer",
        "checkpoints",
        "workdir",
        "logs",
        "distillation",
        "objective",
        "optim",
        "step",
        "compiled_steps",
        "batches",
        "validation",
        "loop",
    ),
    "cli": (
        "cache_command",
        "settings",
        "outputs",
        "writer",
        "coco_file",
        "loading",
        "outcome",
        "progress",
        "video_file",
        "video",
        "cluster",
        "demo",
        "arguments",
        "parse",
        "main",
    ),
}
# Library -> the modules that may import it.
ONLY_IN = {
    "flax": ("models.", "data.inputs", "train.", "io."),
    "optax": ("train.",),
    "orbax": ("train.",),
    "tensorflow_datasets": ("data.prepared",),
    "grain": ("data.order", "data.loader", "train."),
    "ray": ("cli.cluster",),
    "fsspec": ("cli.cluster",),
    "torch": ("io.convert_torch",),
    "onnx": ("io.",),
    "onnxruntime": ("io.export",),
    "matplotlib": ("evaluation.draw",),
    "cv2": (
        "faces.",
        "inference.polygons",
        "evaluation.draw",
        "evaluation.boundaries",
    ),
    "pycocotools": ("inference.coco",),
    "av": ("photos.video",),
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
        if imported.startswith("jax_stn_icnn.") and own != name:
            # A name of a module, `x.y.Name`, stands for its module. The root's own names stand for
            # the parser, so that only the programs may import them.
            below = level(own) or level(own.rpartition(".")[0]) or level("inference.parser")
            assert below < level(name), f"{name} imports {own}"
        library = imported.split(".")[0]
        if library in ONLY_IN:
            assert name.startswith(ONLY_IN[library]), f"{name} imports {library}"


def test_every_module_of_the_layers_exists():
    found = {name for name, _ in modules()}
    named = {f"{package}.{name}" for package, names in WITHIN.items() for name in names}
    named |= {name for name in LAYERS if name not in WITHIN}
    assert named == found


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


@pytest.mark.slow
def test_a_start_of_training_imports_no_more_than_it_needs():
    late = ("matplotlib", "tensorboardX", "torch", "tensorflow")
    program = f"import sys, train; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
