"""Converts checkpoints of the original code: `python -m jax_stn_icnn.io.convert_torch IN OUT`.

IN is a `.pth.tar` file of the original; OUT is a weights file for `weights.load_weights`. Reading
IN needs PyTorch (the extra `torch`) and executes no code of the file; the conversion needs NumPy
only.
"""

import argparse
import functools
import pickle
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.geometry import COARSE_SIZE
from jax_stn_icnn.io.weights import check_entries, first_lines, save_weights
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.localizer import LOCALIZERS

# Sides of patch and frame that the original was trained with, on HELEN.
_PATCH, _FRAME = 81, 1024

StateDict = Mapping[str, Any]
Rules = list[tuple[str, str | Callable[[re.Match], str]]]

# A pattern of a module path in this project -> the module in the original.
_NODE = r"interlink_layers.\1.iCNN_Nodelist.\2."
_ICNN: Rules = [
    (r"input_(\d)/conv", r"input_conv.\1"),
    (r"input_(\d)/norm", r"input_bnm.\1"),
    (r"interlink_(\d)_row_(\d)_mix/conv", _NODE + "inter_conv_node"),
    (r"interlink_(\d)_row_(\d)_mix/norm", _NODE + "inter_conv_node_batchnorm"),
    (r"interlink_(\d)_row_(\d)_own/conv", _NODE + "conv_node"),
    (r"interlink_(\d)_row_(\d)_own/norm", _NODE + "conv_node_batchnorm"),
    (r"integrate_(\d)/conv", r"interlink_layers.2.iCNN_Nodelist.\1.output_conv_node"),
    (r"integrate_(\d)/norm", r"interlink_layers.2.iCNN_Nodelist.\1.output_conv_node_batchnorm"),
    (r"head_1/conv", "last_conv1"),
    (r"head_1/norm", "last_con1_bnm"),
    (r"head_([23])", r"last_conv\1"),
]
# In the original, the small localizer's modules are numbered in sequence: convolution, norm and
# activation, without an activation before the eleventh convolution.
_POSITIONS = [*range(0, 30, 3), 29, 32, 35, 38, 41]
_SMALL: Rules = [
    (r"conv_(\d+)", lambda m: f"localize_net.{_POSITIONS[int(m[1])]}"),
    (r"norm_(\d+)", lambda m: f"localize_net.{_POSITIONS[int(m[1])] + 1}"),
]
_BLOCK = r"layer_(\d)_block_(\d)/"


def _block(rest: str) -> Callable[[re.Match], str]:
    return lambda m: m.expand(rf"model_res.layer{int(m[1]) + 1}.\2.{rest}")


_RESNET18: Rules = [
    (r"conv", "model_res.conv1"),
    (r"norm", "model_res.bn1"),
    (_BLOCK + r"conv_(\d)", _block(r"conv\3")),
    (_BLOCK + r"norm_(\d)", _block(r"bn\3")),
    (_BLOCK + r"shortcut", _block("downsample.0")),
    (_BLOCK + r"shortcut_norm", _block("downsample.1")),
    (r"dense", "model_res.fc"),
]
_FINE_PREFIX = {"brow": "model.0.", "eye": "model.1.", "nose": "model.2.", "mouth": "model.3."}

# Collection and leaf in this project -> leaf in the original.
_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "bias"): "bias",
    ("params", "scale"): "weight",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}

# Entries of a checkpoint that the original's forward pass does not use.
_UNUSED = re.compile(
    r".*("
    r"interlink_layers\.[01]\.iCNN_Nodelist\.\d\.output_conv_node\w*\.\w+"
    r"|interlink_layers\.2\.iCNN_Nodelist\.3\.output_conv_node\w*\.\w+"
    r"|last_con2_bnm\.\w+|last_conv3_bnm\.\w+|\.num_batches_tracked)"
)


class _Entry(NamedTuple):
    """Path of an array in this project's variables, and its shape in the original."""

    path: tuple[str, ...]
    shape: tuple[int, ...]


def convert(
    checkpoint: Mapping[str, StateDict], source: str | Path = "the checkpoint"
) -> tuple[dict[str, Any], str]:
    """Converts a checkpoint of the original to the variables of an `STNiCNN`.

    Args:
        checkpoint: `model1` (coarse), `select_net` (localizer, `small` or `resnet18`) and `model2`
            (fine), each a mapping from the original's parameter names to arrays.
        source: Name of the checkpoint, for messages.

    Returns:
        `{"params": ..., "batch_stats": ...}`, and the model's `cropper`.

    Raises:
        ValueError: A network is missing, or entries are missing, unknown or of another shape; the
            message lists the first of them.
    """
    if missing := [name for name in ("model1", "select_net", "model2") if name not in checkpoint]:
        names = ", ".join(first_lines([str(name) for name in checkpoint])) or "nothing"
        raise ValueError(
            f"{source} has no {', '.join(missing)}: a checkpoint of the original has model1, "
            f"select_net and model2, this one {names}"
        )
    resnet = any(name.startswith("model_res.") for name in checkpoint["select_net"])
    cropper = "resnet18" if resnet else "small"
    plan = _plan(_icnn_shapes(NINE.num_classes), _ICNN, "model1.", ("coarse",))
    plan |= _plan(
        _localizer_shapes(cropper), _RESNET18 if resnet else _SMALL, "select_net.", ("localizer",)
    )
    for network, num_labels in NINE.networks.items():
        prefix = f"model2.{_FINE_PREFIX[network]}"
        plan |= _plan(_icnn_shapes(num_labels), _ICNN, prefix, ("fine", network))
    state = {
        f"{network}.{name}": array
        for network in ("model1", "select_net", "model2")
        for name, array in checkpoint[network].items()
    }
    return _convert(state, plan, source), cropper


def convert_icnn(
    state: StateDict, num_labels: int, source: str | Path = "the checkpoint"
) -> dict[str, Any]:
    """Converts an interlinked CNN of the original to the variables of an `ICNN`.

    Args:
        state: Parameter name in the original -> array.
        num_labels: Number of labels of the network.
        source: Name of the checkpoint, for messages.

    Returns:
        `{"params": ..., "batch_stats": ...}`.

    Raises:
        ValueError: Entries are missing, unknown or of another shape; the message lists all.
    """
    return _convert(state, _plan(_icnn_shapes(num_labels), _ICNN, "", ()), source)


def convert_localizer(
    state: StateDict, cropper: str, source: str | Path = "the checkpoint"
) -> dict[str, Any]:
    """Converts a localizer of the original to the variables of the localizer of that name.

    Args:
        state: Parameter name in the original -> array.
        cropper: `small` or `resnet18`.
        source: Name of the checkpoint, for messages.

    Returns:
        `{"params": ..., "batch_stats": ...}`.

    Raises:
        ValueError: Entries are missing, unknown or of another shape; the message lists all.
    """
    rules = {"small": _SMALL, "resnet18": _RESNET18}
    if cropper not in rules:
        raise ValueError(f"cropper is {cropper!r}, but the original has {' and '.join(rules)}")
    return _convert(state, _plan(_localizer_shapes(cropper), rules[cropper], "", ()), source)


def read_checkpoint(path: str | Path) -> dict[str, StateDict]:
    """Reads a checkpoint of the original without executing code of the file.

    Args:
        path: The `.pth.tar` file.

    Returns:
        Network name -> parameter name -> array.

    Raises:
        FileNotFoundError: The file does not exist.
        ModuleNotFoundError: PyTorch is not installed.
        ValueError: The file is not a checkpoint, or contains more than tensors and plain values.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading a .pth.tar file needs PyTorch: pip install 'jax-stn-icnn[torch]'"
        ) from error
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is not a checkpoint that can be read without executing its code: {error}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"{path} contains a {type(checkpoint).__name__}, but a checkpoint is a dict"
        )
    return {
        name: {key: tensor.numpy() for key, tensor in state.items() if torch.is_tensor(tensor)}
        for name, state in checkpoint.items()
        if isinstance(state, Mapping)
    }


@functools.cache  # Tracing takes longer than all the rest of a conversion.
def _icnn_shapes(num_labels: int) -> Mapping[str, Any]:
    return _shapes(ICNN(num_labels), (1, 16, 16, 3))


@functools.cache
def _localizer_shapes(cropper: str) -> Mapping[str, Any]:
    return _shapes(
        LOCALIZERS[cropper](ModelConfig(cropper=cropper)), (1, *COARSE_SIZE, NINE.num_classes)
    )


def _shapes(module: nn.Module, input_shape: tuple[int, ...]) -> Mapping[str, Any]:
    """Returns the shapes of a module's variables without computing them."""
    example = jax.ShapeDtypeStruct(input_shape, jnp.float32)
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), example)


def _plan(
    variables: Mapping[str, Any], rules: Rules, prefix: str, inside: tuple[str, ...]
) -> dict[str, _Entry]:
    """Returns name in the original -> entry, for each array of a module at the path `inside`."""
    plan = {}
    for (collection, *module, leaf), value in traverse_util.flatten_dict(variables).items():
        name = _original_module("/".join(module), rules)
        shape = value.shape
        if leaf == "kernel":  # HWIO -> OIHW, or in x out -> out x in
            shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
        path = (collection, *inside, *module, leaf)
        plan[f"{prefix}{name}.{_LEAVES[collection, leaf]}"] = _Entry(path, shape)
    return plan


def _original_module(module: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        if match := re.fullmatch(pattern, module):
            return match.expand(replacement) if isinstance(replacement, str) else replacement(match)
    raise AssertionError(f"no rule matches the module {module}")


def _convert(state: StateDict, plan: dict[str, _Entry], source: str | Path) -> dict[str, Any]:
    used = {name: np.asarray(a) for name, a in state.items() if not _UNUSED.fullmatch(name)}
    check_entries(
        source,
        {name: array.shape for name, array in used.items()},
        {name: entry.shape for name, entry in plan.items()},
    )
    flat = {}
    for name, entry in plan.items():
        array = used[name].astype(np.float32)
        if entry.path[-1] == "kernel":
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        flat[entry.path] = array
    return traverse_util.unflatten_dict(flat)


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m jax_stn_icnn.io.convert_torch", description=__doc__
    )
    parser.add_argument("input", type=Path, metavar="IN", help="the original's .pth.tar")
    parser.add_argument("output", type=Path, metavar="OUT", help="the .safetensors file to write")
    args = parser.parse_args(argv)
    try:
        variables, cropper = convert(read_checkpoint(args.input), args.input)
        config = ModelConfig(cropper=cropper, patch_size=_PATCH)
        save_weights(args.output, variables, config, _FRAME)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    count = sum(array.size for array in jax.tree.leaves(variables["params"]))
    print(f"{args.output}: {count:,} parameters, localizer {cropper}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
