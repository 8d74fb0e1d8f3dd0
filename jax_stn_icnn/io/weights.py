"""Weights files: the variables and the config of a model, in safetensors.

Other frameworks read safetensors too, and loading a file never executes code.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from jax_stn_icnn.atomic import write_atomically
from jax_stn_icnn.models.config import MOST_PIXELS, ModelConfig
from jax_stn_icnn.models.pipeline import STNiCNN, remember_shapes, variable_shapes

FORMAT = "jax_stn_icnn/3"
# Directory of the weights in the package, and the name of those that are loaded by default.
PRETRAINED = Path(__file__).parents[1] / "pretrained"
DEFAULT = "nineteen"
# The file of `sha256sum` beside them, with the name and SHA-256 of each.
CHECKSUMS = "SHA256SUMS"
# Files in the directory of a training run.
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"


class Weights(NamedTuple):
    """Contents of a weights file.

    Attributes:
        variables: `{"params": ..., "batch_stats": ...}`, float32.
        model: The model of the variables.
        frame_size: Side of the frame that the model was trained at, in pixels.
        license: Under which terms the variables may be used; empty if the file names none.
    """

    variables: dict[str, Any]
    model: STNiCNN
    frame_size: int
    license: str = ""


def save_weights(
    path: str | Path,
    variables: Mapping[str, Any],
    config: ModelConfig,
    frame_size: int,
    *,
    half: bool = False,
    license: str = "",
) -> None:
    """Writes a model's variables and its config. An existing file is replaced atomically.

    Args:
        path: The file, usually `*.safetensors`; its directory must exist.
        variables: `{"params": ..., "batch_stats": ...}` of the model.
        config: The model's options. `dtype` is not stored: a loaded model has float32.
        frame_size: Side of the frame that the model was trained at, in pixels.
        half: Whether to store parameters as float16, which halves the file's size. Statistics are
            stored as float32, and `load_weights` returns float32.
        license: Under which terms the variables may be used; exported files repeat it.
    """
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    arrays = {name: np.ascontiguousarray(value) for name, value in flat.items()}
    if half:
        arrays = {
            name: array.astype(np.float16) if name.startswith("params/") else array
            for name, array in arrays.items()
        }
    metadata = {
        "format": FORMAT,
        "frame_size": json.dumps(frame_size),
        "model": json.dumps(config.replace(dtype="float32").to_dict()),
    }
    if license:
        metadata["license"] = license
    data = _sort_metadata(safetensors.numpy.save(arrays, metadata))
    write_atomically(Path(path), lambda file: file.write(data))


def _sort_metadata(data: bytes) -> bytes:
    """Returns the bytes of a file with sorted metadata; safetensors writes them in random order."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + text.ljust(length) + data[8 + length :]


def load_weights(path: str | Path) -> Weights:
    """Returns the contents of a file that `save_weights` wrote.

    Args:
        path: The file.

    Returns:
        The variables, the model and its frame size.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not a weights file or is truncated, its variables are not those of
            its model, or it is in the package and its SHA-256 is not that of the published file.
    """
    is_published = Path(path).resolve().parent == PRETRAINED.resolve()
    if is_published:
        _check_sha256(Path(path))
    metadata, flat = _read(path)
    try:
        config = ModelConfig.from_dict(json.loads(metadata["model"]))
        frame_size = json.loads(metadata["frame_size"])
    except KeyError as error:
        raise ValueError(f"{path}: the metadata have no {error}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    if type(frame_size) is not int or not 2 <= frame_size <= MOST_PIXELS:
        raise ValueError(
            f"{path}: frame_size is {frame_size!r}, but must be a whole number in 2..{MOST_PIXELS}"
        )
    for name, array in flat.items():
        if array.dtype not in (np.float16, np.float32):
            raise ValueError(f"{path}: {name} is {array.dtype}, but must be float16 or float32")
    flat = {name: array.astype(np.float32, copy=False) for name, array in flat.items()}
    variables = traverse_util.unflatten_dict(flat, sep="/")
    model = STNiCNN(config)
    if is_published:
        remember_shapes(model, variables)
    else:
        check_entries(path, shapes(variables), shapes(variable_shapes(model)))
    return Weights(variables, model, frame_size, metadata.get("license", ""))


def _check_sha256(path: Path) -> None:
    """Raises ValueError unless a file in the package is the one that was published."""
    lines = (PRETRAINED / CHECKSUMS).read_text().splitlines()
    published = {name: sha256 for sha256, name in map(str.split, lines)}
    if hashlib.sha256(path.read_bytes()).hexdigest() != published.get(path.name):
        raise ValueError(
            f"{path} is damaged, or is not the published file: its SHA-256 differs from that in "
            f"{CHECKSUMS}; install jax-stn-icnn again"
        )


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Returns a file's metadata and its arrays."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is truncated: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is a safetensors file, but not a weights file of this version: its format is "
            f"{metadata.get('format')!r}, but must be {FORMAT!r}"
        )
    return metadata, flat


def weights_file(source: str | Path | None) -> Path:
    """Returns the path of the weights file that `FaceParser.load` reads.

    Args:
        source: The name of weights in the package, a weights file, or the directory of a training
            run; None for the default weights.

    Raises:
        FileNotFoundError: The file does not exist; the message lists the weights in the package.
    """
    shipped = {path.stem: path for path in PRETRAINED.glob("*.safetensors")}
    name = DEFAULT if source is None else str(source)
    if name in shipped:
        return shipped[name]
    path = Path(name).expanduser()
    file = path / WEIGHTS if path.is_dir() else path
    if not file.exists():
        names = ", ".join(sorted(shipped)) or "none"
        raise FileNotFoundError(
            f"{file}: there is no such weights file; weights in this installation: {names}"
        )
    return file


def check_entries(
    source: str | Path,
    actual: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    """Checks the names and shapes of variables; the error lists the first differences of each kind.

    Args:
        source: Where the variables come from, for the message.
        actual: Name -> shape of the variables to check.
        expected: Name -> shape of the model's variables.

    Raises:
        ValueError: Variables are missing, unknown or of another shape.
    """
    kinds = [
        [f"missing: {name} {expected[name]}" for name in sorted(expected.keys() - actual)],
        [f"unknown: {name} {actual[name]}" for name in sorted(actual.keys() - expected)],
        [
            f"wrong shape: {name} is {actual[name]}, must be {expected[name]}"
            for name in sorted(expected.keys() & actual)
            if tuple(actual[name]) != tuple(expected[name])
        ],
    ]
    kinds = [problems for problems in kinds if problems]
    if kinds:
        lines = [line for problems in kinds for line in first_lines(problems, 10 // len(kinds))]
        count, text = sum(map(len, kinds)), "\n  ".join(lines)
        raise ValueError(f"{source} does not match the model ({count} variables):\n  {text}")


def first_lines(lines: Sequence[str], most: int = 10) -> list[str]:
    """Returns the first lines of a list, and one with the number of the others, if there are any.

    Args:
        lines: The lines.
        most: Number of lines to return as they are.
    """
    others = len(lines) - most
    return [*lines[:most], *([f"and {others} more"] if others > 0 else [])]


def shapes(variables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of every array in a tree; names are paths with slashes."""
    flat = traverse_util.flatten_dict(jax.tree.map(np.shape, dict(variables)), sep="/")
    return {name: tuple(shape) for name, shape in flat.items()}
