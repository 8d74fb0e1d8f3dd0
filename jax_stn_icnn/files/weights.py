"""Weights in a file: safetensors, readable by any framework, nothing in it is executed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

FORMAT = "jax_stn_icnn/1"
# What a run's directory calls them.
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"


class Sides(NamedTuple):
    """What a model was trained at, in pixels.

    Attributes:
        patch: side of the patches.
        frame: side of the frame.
    """

    patch: int
    frame: int


def save_weights(
    path: str | Path,
    variables: Mapping[str, Any],
    cropper: str,
    sides: Sides,
    *,
    half: bool = False,
) -> None:
    """Writes a model's variables.

    Args:
        path: the file to write, by custom `*.safetensors`; its folder must exist.
        variables: `{"params": ..., "batch_stats": ...}` of an `STNiCNN`.
        cropper: the model's `cropper`.
        sides: the sides of patch and frame.
        half: whether the file holds parameters as float16, which halves its size. Statistics stay
            float32, and reading makes float32 of all.
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
        "cropper": cropper,
        "patch_size": str(sides.patch),
        "frame_size": str(sides.frame),
    }
    Path(path).write_bytes(_in_order(safetensors.numpy.save(arrays, metadata)))


def _in_order(data: bytes) -> bytes:
    """The same file, its metadata sorted: safetensors writes them in another order each time."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + text.ljust(length) + data[8 + length :]


def load_weights(path: str | Path) -> tuple[dict[str, Any], str]:
    """Reads what `save_weights` wrote.

    Args:
        path: the file.

    Returns:
        The variables, float32, and the model's `cropper`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, or is cut short.
    """
    metadata, flat = _open(path, tensors=True)
    flat = {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in flat.items()
    }
    return traverse_util.unflatten_dict(flat, sep="/"), metadata["cropper"]


def load_sides(path: str | Path) -> Sides:
    """Reads the sides that `save_weights` wrote beside the variables.

    Args:
        path: the file.

    Returns:
        The sides of patch and frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, or holds no sides, as files of older runs.
    """
    metadata, _ = _open(path, tensors=False)
    try:
        sides = Sides(int(metadata["patch_size"]), int(metadata["frame_size"]))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} does not say its patch_size and frame_size: its metadata are "
            f"{json.dumps(metadata)}. A run's directory says both in its config"
        ) from error
    return sides


def _open(path: str | Path, tensors: bool) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """A file's metadata and, if asked, its arrays."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()} if tensors else {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is cut short: {error}") from error
    if metadata.get("format") != FORMAT or "cropper" not in metadata:
        raise ValueError(
            f"{path} is a safetensors file, but not of this project: its metadata are "
            f"{json.dumps(metadata)}, and should hold format={FORMAT!r} and a cropper"
        )
    return metadata, flat


def check_entries(
    source: str | Path,
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    """Checks that a file holds just what a model needs, and lists all that differs at once.

    Args:
        source: the file, for the message.
        found: name -> shape of what it holds.
        expected: name -> shape of what the model needs.

    Raises:
        ValueError: entries are missing, unknown or of another shape.
    """
    problems = [f"missing: {name} {expected[name]}" for name in sorted(expected.keys() - found)]
    problems += [f"unknown: {name} {found[name]}" for name in sorted(found.keys() - expected)]
    problems += [
        f"wrong shape: {name} is {found[name]}, must be {expected[name]}"
        for name in sorted(expected.keys() & found)
        if tuple(found[name]) != tuple(expected[name])
    ]
    if problems:
        text = "\n  ".join(problems)
        raise ValueError(f"{source} does not fit the model ({len(problems)} entries):\n  {text}")


def shapes(variables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every array in a tree, names joined by slashes."""
    flat = traverse_util.flatten_dict(jax.tree.map(np.shape, dict(variables)), sep="/")
    return {name: tuple(shape) for name, shape in flat.items()}
