"""A compiled program as bytes: JAX's executable and a description in JSON, without pickle.

`jax.experimental.serialize_executable` pickles a program's trees, types and shardings.
"""

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jax.stages import Compiled

Description = dict[str, Any]


def serialize(compiled: Compiled, devices: Sequence[jax.Device]) -> bytes:
    """Returns a compiled program as bytes.

    Args:
        compiled: The program. Its arguments have no keywords; its outputs are trees of dicts with
            names as keys and of tuples.
        devices: Devices that it runs on, in the order of its mesh, if it has one.

    Returns:
        Bytes for `Program`.

    Raises:
        TypeError: The outputs have another structure, or the shardings are of another kind.
    """
    out_tree: Any = compiled.out_tree
    in_tree: Any = compiled.in_tree
    out_leaves = jax.tree.leaves(compiled.out_info)
    numbers = jax.tree.unflatten(out_tree, range(len(out_leaves)))
    # JAX describes an argument that the program does not use by None.
    shardings = in_tree.flatten_up_to(compiled.input_shardings)
    description = {
        "inputs": [
            [list(leaf.shape), leaf.dtype.name, None if used is None else _to_json(used, devices)]
            for leaf, used in zip(jax.tree.leaves(compiled.args_info), shardings, strict=True)
        ],
        "outputs": [[list(leaf.shape), _to_json(leaf.sharding, devices)] for leaf in out_leaves],
        "tree": numbers,
    }
    text = json.dumps(description)
    if jax.tree.structure(_tuples(json.loads(text)["tree"])) != out_tree:
        raise TypeError(f"the outputs are not of dicts and tuples: {out_tree}")
    executable = compiled.runtime_executable()
    assert executable is not None
    return text.encode() + b"\n" + devices[0].client.serialize_executable(executable)


class Program:
    """A program that `serialize` returned as bytes; called as the compiled program."""

    def __init__(self, data: bytes, devices: Sequence[jax.Device]):
        """Loads the program, which is code: `data` must come from this user.

        Args:
            data: What `serialize` returned, for the same versions, settings and processor.
            devices: Devices that it runs on, as many as for `serialize`.

        Raises:
            jax.errors.JaxRuntimeError: JAX cannot load the executable.
        """
        text, _, executable = data.partition(b"\n")
        description: Description = json.loads(text)
        self._types = [(tuple(shape), np.dtype(name)) for shape, name, _ in description["inputs"]]
        self._shardings = [
            None if used is None else _from_json(used, devices)
            for *_, used in description["inputs"]
        ]
        self._outputs = [
            (tuple(shape), _from_json(used, devices)) for shape, used in description["outputs"]
        ]
        self._tree = jax.tree.structure(_tuples(description["tree"]))
        self._executable = devices[0].client.deserialize_executable(
            executable, executable_devices=tuple(devices)
        )

    def __call__(self, *args: Any) -> Any:
        """Runs the program.

        Args:
            *args: Trees of arrays.

        Returns:
            The outputs, a tree of dicts and tuples.

        Raises:
            ValueError: Number, shapes or types of the arrays are not those of the program.
        """
        leaves = jax.tree.leaves(args)
        # JAX converts NumPy's 64-bit types, unless it is set to use them.
        types = [(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)) for leaf in leaves]
        if types != self._types:
            raise ValueError(f"the arrays must be {self._types}, got {types}")
        inputs = [
            _place(leaf, sharding)
            for leaf, sharding in zip(leaves, self._shardings, strict=True)
            if sharding is not None
        ]
        results = self._executable.execute_sharded(inputs).disassemble_into_single_device_arrays()
        outputs = [
            jax.make_array_from_single_device_arrays(shape, sharding, arrays)
            for (shape, sharding), arrays in zip(self._outputs, results, strict=True)
        ]
        return jax.tree.unflatten(self._tree, outputs)


def _place(leaf: Any, sharding: Sharding) -> jax.Array:
    """Returns an array on the devices of a sharding, itself if it is there."""
    is_there = isinstance(leaf, jax.Array) and leaf.sharding == sharding
    return leaf if is_there else jax.device_put(leaf, sharding)


def _tuples(tree: Any) -> Any:
    """Returns a tree from JSON, whose tuples are lists, with the tuples."""
    if isinstance(tree, dict):
        return {name: _tuples(child) for name, child in tree.items()}
    return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree


def _to_json(sharding: Sharding, devices: Sequence[jax.Device]) -> Description:
    """Returns a sharding over devices as JSON; that of one device has a mesh without axes."""
    if isinstance(sharding, SingleDeviceSharding) and sharding.device_set == {devices[0]}:
        return {"mesh": {}, "spec": []}
    if isinstance(sharding, NamedSharding) and list(sharding.mesh.devices.flat) == list(devices):
        return {"mesh": dict(sharding.mesh.shape), "spec": list(sharding.spec)}
    raise TypeError(f"{sharding} is not over {list(devices)}")


def _from_json(description: Description, devices: Sequence[jax.Device]) -> Sharding:
    mesh = description["mesh"]
    if not mesh:
        return SingleDeviceSharding(devices[0])
    shaped = np.array(devices).reshape(tuple(mesh.values()))
    return NamedSharding(Mesh(shaped, tuple(mesh)), PartitionSpec(*_tuples(description["spec"])))
