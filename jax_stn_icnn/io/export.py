"""Exports the parser to ONNX or StableHLO, and compares the file with the parser.

    stn-icnn export --format onnx --out parser.onnx
    stn-icnn export --format stablehlo --out parser.stablehlo

A file whose labels differ from the parser's is not written.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax import export as jax_export

from jax_stn_icnn.faces import framing, resample
from jax_stn_icnn.io import network
from jax_stn_icnn.io.weights import Weights
from jax_stn_icnn.ops.platform import use_platform
from tfds_builders.synthetic_faces.classes import PORTRAIT_CLASSES
from tfds_builders.synthetic_faces.portrait import draw_portrait

LOG = logging.getLogger(__name__)

FORMATS = ("onnx", "stablehlo")
PLATFORMS = ("cpu", "tpu", "cuda")  # A StableHLO file supports all of them.
# Smallest share of equal pixels: rounding decides where two classes have almost equal scores.
AGREEMENT = 0.999
FACES = 2  # Drawn portraits that are compared: one batch of the file, one by one in the parser.

Inputs = Mapping[str, np.ndarray]  # by name, as `network.inputs` describes them
Run = Callable[[Inputs], Sequence[np.ndarray]]  # returns the arrays that `network.outputs` names


def write(weights: Weights, path: Path, file_format: str) -> float:
    """Writes a parser for other runtimes, and compares the file with the parser.

    Args:
        weights: Weights as `load_weights` returns them.
        path: The file. A `stablehlo` file gets its metadata as a second file, `path` with `.json`
            appended.
        file_format: One of FORMATS.

    Returns:
        The share of pixels of drawn portraits with equal labels.

    Raises:
        ValueError: The format is unknown, the path is a directory, or the labels of the file differ
            from the parser's; then no file is written.
        FileNotFoundError: The directory of the file does not exist.
        ModuleNotFoundError: ONNX is not installed.
    """
    if file_format not in FORMATS:
        raise ValueError(f"format is {file_format!r}, but must be one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out is {path}, but the directory {path.parent} does not exist")
    if path.is_dir():
        raise ValueError(f"--out is {path}, a directory, but must be a file")
    # A warning, because Python prints nothing below unless the program configures its log.
    LOG.warning("Compiling the networks for %s, and for a comparison ...", file_format)
    partial = path.with_name(f".{path.name}.partial")
    try:
        run = (_write_onnx if file_format == "onnx" else _write_stablehlo)(weights, partial)
        agreement = _agreement(weights, run)
        if agreement < AGREEMENT:
            raise ValueError(
                f"{path} is not written: its labels equal the parser's on {agreement:.4f} of the "
                f"pixels of drawn portraits, but must on {AGREEMENT}"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if file_format == "stablehlo":
        metadata = {name: json.loads(value) for name, value in network.metadata(weights).items()}
        path.with_name(f"{path.name}.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return agreement


def drawn_inputs(weights: Weights, count: int) -> dict[str, np.ndarray]:
    """Returns the networks' inputs for drawn portraits.

    Args:
        weights: Weights as `load_weights` returns them.
        count: Number of portraits.

    Returns:
        The arrays that `network.inputs` describes, by name, for a batch of `count`.
    """
    specs = network.inputs(weights)
    face_ids = range(1, PORTRAIT_CLASSES.index("skin") + 1)
    crops: dict[str, list[np.ndarray]] = {name: [] for name in specs}
    for index in range(count):
        image, label = draw_portrait("test", index)
        rows, columns = np.nonzero(np.isin(label, face_ids))
        box = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        frame = framing.frame_from_box(box, weights.frame_size)
        for name, spec in specs.items():
            size = spec.shape[1:3]
            is_wide = name == network.WIDE_FRAMES
            matrix = framing.wide_frame(frame, weights.frame_size, size[0]) if is_wide else frame
            crops[name].append(resample.warp(image, matrix, size))
    return {name: np.stack(images) for name, images in crops.items()}


def _write_onnx(weights: Weights, path: Path) -> Run:
    """Writes an ONNX file and returns the function that runs it."""
    try:
        import onnx
        import onnxruntime

        from jax_stn_icnn.io import jaxpr_to_onnx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'jax-stn-icnn[onnx]'"
        ) from error
    names = network.outputs(weights)
    with use_platform("onnx"):
        model = jaxpr_to_onnx.convert(
            network.network(weights),
            network.inputs(weights),
            output_names=names,
            metadata=network.metadata(weights),
        )
    model.doc_string, model.model_version = network.DESCRIPTION, network.VERSION
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(names, dict(inputs))


def _write_stablehlo(weights: Weights, path: Path) -> Run:
    """Writes a StableHLO file and returns the function that runs it."""
    # One program for all platforms: those of CPUs are slow loops on accelerators.
    with use_platform("gpu"):
        exported = jax_export.export(jax.jit(network.network(weights)), platforms=PLATFORMS)(
            *network.inputs(weights).values()
        )
    path.write_bytes(exported.serialize())
    program = jax_export.deserialize(bytearray(path.read_bytes()))
    return lambda inputs: jax.tree.map(np.asarray, program.call(*inputs.values()))


def _agreement(weights: Weights, run: Run) -> float:
    """Returns the share of pixels of drawn portraits on which labels are equal to the parser's."""
    inputs = drawn_inputs(weights, FACES)
    parse = jax.jit(network.network(weights))
    singly = [parse(*[array[i : i + 1] for array in inputs.values()]) for i in range(FACES)]
    expected = [np.concatenate(arrays) for arrays in zip(*singly, strict=True)]
    return float(np.mean(_all_labels(run(inputs)) == _all_labels(expected)))


def _all_labels(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the labels of all pixels of the frames, and of the wide frames if there are any."""
    labels, _, _, *wide_scores = outputs
    return np.concatenate([labels.ravel(), *[scores.argmax(1).ravel() for scores in wide_scores]])
