"""Weights in a file: safetensors, readable by any framework, nothing in it is executed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

FORMAT = "jax_stn_icnn/1"


def save_weights(path: str | Path, variables: Mapping[str, Any], cropper: str) -> None:
    """Writes a model's variables.

    Args:
        path: the file to write, by custom `*.safetensors`; its folder must exist.
        variables: `{"params": ..., "batch_stats": ...}` of an `STNiCNN`.
        cropper: the model's `cropper`.
    """
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    arrays = {name: np.ascontiguousarray(value) for name, value in flat.items()}
    safetensors.numpy.save_file(arrays, path, {"format": FORMAT, "cropper": cropper})


def load_weights(path: str | Path) -> tuple[dict[str, Any], str]:
    """Reads what `save_weights` wrote.

    Args:
        path: the file.

    Returns:
        The variables, and the model's `cropper`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, or is cut short.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is cut short: {error}") from error
    if metadata.get("format") != FORMAT or "cropper" not in metadata:
        raise ValueError(
            f"{path} is a safetensors file, but not of this project: its metadata are "
            f"{json.dumps(metadata)}, and should hold format={FORMAT!r} and a cropper"
        )
    return traverse_util.unflatten_dict(flat, sep="/"), metadata["cropper"]


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
