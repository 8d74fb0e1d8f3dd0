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

from jax_stn_icnn import anatomy
from jax_stn_icnn.anatomy import Anatomy, Part
from jax_stn_icnn.models.pipeline import STNiCNN, variable_shapes

FORMAT = "jax_stn_icnn/2"
# What the metadata say of the model.
DESCRIPTION = (
    "cropper",
    "anatomy",
    "classes",
    "patch_size",
    "coarse_network",
    "coarse_channels",
    "coarse_stride",
    "fine_channels",
    "frame_size",
)
# What they say of an anatomy besides its name, so that a file needs no other to be read.
ANATOMY = ("classes", "parts", "pairs", "groups", "colours")
PRETRAINED = Path(__file__).parents[1] / "pretrained"
# Which of the weights that come with the package are taken if none are named.
DEFAULT = "nineteen"
# What a run's directory calls them.
WEIGHTS = "weights.safetensors"
CONFIG = "config.json"


class Weights(NamedTuple):
    """What a file of weights holds.

    Attributes:
        variables: `{"params": ..., "batch_stats": ...}`, float32.
        model: the parser that they are of.
        frame_size: side of the frame that it was trained at, in pixels.
    """

    variables: dict[str, Any]
    model: STNiCNN
    frame_size: int


def save_weights(
    path: str | Path,
    variables: Mapping[str, Any],
    model: STNiCNN,
    frame_size: int,
    *,
    half: bool = False,
) -> None:
    """Writes a model's variables, and what the model is.

    Args:
        path: the file to write, by custom `*.safetensors`; its folder must exist.
        variables: `{"params": ..., "batch_stats": ...}` of the model.
        model: the parser.
        frame_size: side of the frame that it was trained at, in pixels.
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
    described: dict[str, Any] = {
        "cropper": model.cropper,
        "anatomy": model.anatomy.name,
        "classes": model.anatomy.classes,
        "parts": model.anatomy.parts,
        "pairs": model.anatomy.pairs,
        "groups": model.anatomy.groups,
        "colours": model.anatomy.colours,
        "patch_size": model.patch_size,
        "coarse_network": model.coarse_network,
        "coarse_channels": model.coarse_channels,
        "coarse_stride": model.coarse_stride,
        "fine_channels": model.fine_channels,
        "interlinks": model.interlinks,
        "following": model.following,
        "attention": model.attention,
        "edges": model.edges,
        "bridge": model.bridge,
        "flip_test": model.flip_test,
        "coarse_size": model.coarse_size,
        "frame_size": frame_size,
    }
    metadata = {name: json.dumps(value) for name, value in described.items()}
    metadata["format"] = FORMAT
    Path(path).write_bytes(_in_order(safetensors.numpy.save(arrays, metadata)))


def _in_order(data: bytes) -> bytes:
    """The same file, its metadata sorted: safetensors writes them in another order each time."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + text.ljust(length) + data[8 + length :]


def load_weights(path: str | Path) -> Weights:
    """Reads what `save_weights` wrote.

    Args:
        path: the file.

    Returns:
        The variables, the model and its frame's size.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, or is cut short, or its classes are not known here, or
            its variables are not those of the model that it names.
    """
    metadata, flat = _open(path)
    model, frame_size = _model(path, metadata)
    flat = {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in flat.items()
    }
    variables = traverse_util.unflatten_dict(flat, sep="/")
    check_entries(path, shapes(variables), shapes(variable_shapes(model)))
    return Weights(variables, model, frame_size)


def _model(path: str | Path, metadata: Mapping[str, str]) -> tuple[STNiCNN, int]:
    """The parser that a file's metadata describe, and the size of its frame."""
    if missing := [name for name in DESCRIPTION if name not in metadata]:
        raise ValueError(
            f"{path} does not say its {', '.join(missing)}: its metadata are "
            f"{json.dumps(metadata)}, and should hold {', '.join(DESCRIPTION)}"
        )
    try:
        said = {name: json.loads(metadata[name]) for name in DESCRIPTION}
        return STNiCNN(
            _as_tuples(said["patch_size"]),
            said["cropper"],
            anatomy=_anatomy(metadata),
            coarse_network=said["coarse_network"],
            coarse_channels=tuple(said["coarse_channels"]),
            coarse_stride=int(said["coarse_stride"]),
            fine_channels=tuple(said["fine_channels"]),
            # Files older than these do not say them.
            interlinks=int(json.loads(metadata.get("interlinks", "3"))),
            following=bool(json.loads(metadata.get("following", "false"))),
            attention=int(json.loads(metadata.get("attention", "0"))),
            edges=bool(json.loads(metadata.get("edges", "false"))),
            bridge=bool(json.loads(metadata.get("bridge", "false"))),
            flip_test=bool(json.loads(metadata.get("flip_test", "false"))),
            coarse_size=int(json.loads(metadata.get("coarse_size", "128"))),
        ), int(said["frame_size"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _anatomy(metadata: Mapping[str, str]) -> Anatomy:
    """What a face consists of, in a file's own words; older files only name it."""
    said = {name: _as_tuples(json.loads(metadata[name])) for name in ANATOMY if name in metadata}
    if len(said) == len(ANATOMY):
        parts = tuple(Part(*part) for part in said.pop("parts"))
        return Anatomy(json.loads(metadata["anatomy"]), parts=parts, **said)
    found = anatomy.get_anatomy(json.loads(metadata["anatomy"]))
    if said["classes"] != found.classes:
        raise ValueError(
            f"its classes {found.name!r} are {', '.join(said['classes'])}, "
            f"but here they are {', '.join(found.classes)}"
        )
    return found


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _open(path: str | Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """A file's metadata and its arrays."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is cut short: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is a safetensors file, but not of this project: its metadata are "
            f"{json.dumps(metadata)}, and should hold format={FORMAT!r}"
        )
    return metadata, flat


def weights_file(source: str | Path | None) -> Path:
    """The file that holds the weights of what `FaceParser.load` is given.

    Args:
        source: as there.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: there is no such file; the message lists what comes with the package.
    """
    shipped = {path.stem: path for path in PRETRAINED.glob("*.safetensors")}
    if source is None or source in shipped:
        name = DEFAULT if source is None else str(source)
        if name in shipped:
            return shipped[name]
        source = name
    path = Path(source).expanduser()
    file = path / WEIGHTS if path.is_dir() else path
    if not file.exists():
        names = ", ".join(sorted(shipped)) or "none"
        raise FileNotFoundError(
            f"there is no file of weights {file}; those that come with this installation: {names}"
        )
    return file


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
