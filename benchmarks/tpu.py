"""Prints the TPU compiler's estimates for parsing and training; these are not measurements.

    pip install -e '.[tpu]'
    python -m benchmarks.tpu                                    # all programs, takes hours
    python -m benchmarks.tpu --topology v5e:2x2 --only parse,joint --append

No TPU is needed: libtpu compiles for chips that are not attached. It estimates the cycles of most
operations. The time is their sum, as if nothing overlapped; gathers and the exchange between chips
have no estimate and are listed separately.
"""

import functools
import importlib.metadata
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags, logging
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import hlo
from benchmarks.inputs import BATCH, FRAME
from benchmarks.rows import random_model, training_batch
from benchmarks.training import CONFIG, SCHEDULE, STAGES
from jax_stn_icnn.inference.programs import parse_frames
from jax_stn_icnn.io.weights import load_weights, weights_file
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.models.prepared import prepare
from jax_stn_icnn.ops.platform import use_platform
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.state import TrainState
from jax_stn_icnn.train.step import AXIS, map_train_step, shard

DOCUMENT = Path(__file__).parents[1] / "docs/notes/2026-11/performance_tables.md"
TOPOLOGIES = ("v5e:2x2", "v6e:2x2", "v5e:16x16")
# Cycles per second: the published peak over the operations of the matrix units per cycle.
CLOCK = {"v5e": 1.50e9, "v6e": 1.75e9}
PIPELINE_STAGES = (*(stage for stage, _ in hlo.STAGES), hlo.OTHER)
HEADER = (
    "| estimates, bfloat16 | compilation | MB/chip (temporary) | million cycles | faces/s per chip "
    f"| MB exchanged | {' | '.join(PIPELINE_STAGES)} | without an estimate |"
)
DTYPE = "bfloat16"
PLATFORM = "tpu"

_TOPOLOGY = flags.DEFINE_list("topology", list(TOPOLOGIES), "Topologies, such as v5e:2x2.")
_ONLY = flags.DEFINE_list(
    "only", None, "Programs to compile, such as parse or joint; all by default."
)
_APPEND = flags.DEFINE_bool("append", False, f"Append the table to {DOCUMENT.name}.")


class Program(NamedTuple):
    """A program to compile.

    Attributes:
        name: Name of the program.
        faces: Number of faces per chip.
        lower: Lowers it for a topology.
    """

    name: str
    faces: int
    lower: Callable[[Any], jax.stages.Lowered]


class Estimate(NamedTuple):
    """The compiler's estimate of a program.

    Attributes:
        name: Name of the program and of the topology.
        seconds: Time of the compilation.
        bytes: Memory per chip, and its temporary part.
        faces_per_second: Faces per second and chip, from the cycles.
        operations: The operations of the program.
    """

    name: str
    seconds: float
    bytes: tuple[int, int]
    faces_per_second: float
    operations: list[hlo.Operation]

    def line(self) -> str:
        """Returns a line of the table."""
        stages = hlo.cycles_by(self.operations, "stage")
        missing = hlo.without_estimate(self.operations)
        if any(operation.uncounted for operation in self.operations):
            missing["loops of unknown length"] = 1
        cells = [
            self.name,
            f"{self.seconds:.0f} s",
            f"{self.bytes[0] / 1e6:.0f} ({self.bytes[1] / 1e6:.0f})",
            f"{sum(stages.values()) / 1e6:.1f}",
            f"{self.faces_per_second:.0f}",
            f"{sum(operation.exchanged for operation in self.operations) / 1e6:.2f}",
            *(f"{stages.get(stage, 0) / 1e6:.1f}" for stage in PIPELINE_STAGES),
            ", ".join(f"{count} {kind}" for kind, count in missing.items()) or "none",
        ]
        return "| " + " | ".join(cells) + " |"

    def details(self) -> Iterator[str]:
        """Yields the cycles by kind of operation, and the ten operations with the most cycles."""
        kinds = hlo.cycles_by(self.operations, "kind")
        yield ", ".join(f"{kind} {cycles / 1e6:.2f}" for kind, cycles in kinds.items())
        for operation in sorted(self.operations, key=lambda o: o.cycles or 0, reverse=True)[:10]:
            yield (
                f"  {(operation.cycles or 0) / 1e6:8.3f}  {operation.kind}, {operation.stage}: "
                f"{operation.path or operation.name}"
            )


def programs() -> list[Program]:
    """Returns the parse of nine classes and of the shipped weights, and the step of each stage."""
    result = []
    for faces in (1, BATCH):
        for name, make in (("parse", _nine), ("full-face parse", _full_face)):
            result.append(Program(name, faces, functools.partial(_parse, make, faces)))
    for stage in STAGES:
        result.append(Program(stage, BATCH, functools.partial(_training_step, stage)))
    return result


def estimate(program: Program, topology_name: str) -> Estimate:
    """Compiles a program for chips that need not be attached.

    Args:
        program: The program.
        topology_name: Name of the topology, such as v5e:2x2.

    Returns:
        The estimate.

    Raises:
        ValueError: The clock of such chips is unknown.
    """
    chip = topology_name.split(":")[0]
    if chip not in CLOCK:
        raise ValueError(f"topology is {topology_name!r}, but must be one of {', '.join(CLOCK)}")
    topology = topologies.get_topology_desc(platform=PLATFORM, topology_name=topology_name)
    lowered = program.lower(topology)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    operations = hlo.operations(compiled.as_text() or "")
    cycles = sum(operation.cycles or 0 for operation in operations)
    return Estimate(
        f"{program.name}, {topology_name}, {program.faces} per chip",
        seconds,
        (held + memory.temp_size_in_bytes, memory.temp_size_in_bytes),
        program.faces * CLOCK[chip] / cycles,
        operations,
    )


def _nine() -> tuple[STNiCNN, Any]:
    return random_model(CONFIG.replace(dtype=DTYPE), FRAME)


def _full_face() -> tuple[STNiCNN, Any]:
    weights = load_weights(weights_file("nineteen"))
    return STNiCNN(weights.model.config.replace(dtype=DTYPE)), weights.variables


def _parse(
    make: Callable[[], tuple[STNiCNN, Any]], faces: int, topology: Any
) -> jax.stages.Lowered:
    """Lowers the parse of frames, and of wide frames if the model is trained for them.

    They are sharded over the chips.
    """
    model, variables = make()
    chips = len(topology.devices)
    mesh = topologies.make_mesh(topology, (chips,), (AXIS,))

    def struct(shape: tuple[int, ...], dtype: Any, *axes: str) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    sizes = [(FRAME, FRAME), *[model.config.coarse_image_size] * model.config.wide]
    frames = [struct((chips * faces, *size, 3), np.uint8, AXIS) for size in sizes]
    with use_platform(PLATFORM):
        prepared = jax.eval_shape(functools.partial(prepare, model), variables)
        shapes = jax.tree.map(lambda leaf: struct(leaf.shape, leaf.dtype), prepared)
        return parse_frames.lower(model, shapes, *frames)


def _training_step(name: str, topology: Any) -> jax.stages.Lowered:
    """Lowers the step of a stage as train.py maps it, without augmentation."""
    stage, chips = STAGES[name], len(topology.devices)
    model, variables = random_model(CONFIG.replace(dtype=DTYPE), FRAME, AXIS)
    params = variables["params"]
    moments = make_optimizer(stage, *SCHEDULE).init(params)
    state = TrainState(np.int32(0), params, variables["batch_stats"], moments)
    one = shard(training_batch(BATCH, FRAME), 1)
    batch = {
        name: jax.ShapeDtypeStruct((chips, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in one.items()
    }
    step = map_train_step(model, stage, *SCHEDULE, devices=topology.devices)
    with use_platform(PLATFORM):
        return step.lower(state, batch, np.uint32(0))


def main(argv: Sequence[str]) -> None:
    """Prints the table, and the operations with the most cycles."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    jax.config.update("jax_platforms", "cpu")
    # Does not query a TPU's metadata server, and lets other processes use libtpu.
    os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    names = list(dict.fromkeys(program.name for program in programs()))
    only = _ONLY.value or names
    if unknown := [name for name in only if name not in names]:
        raise app.UsageError(f"--only is {', '.join(unknown)}, but must be some of {names}")
    wanted = [program for program in programs() if program.name in only]
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("jax", "libtpu"))
    head = f"Estimates of the TPU compiler ({versions}), not measurements."
    table = [HEADER, "|" + "---|" * (HEADER.count("|") - 1)]
    print(head, *table, sep="\n", flush=True)
    details = []
    for topology_name in _TOPOLOGY.value:
        for program in wanted:
            found = estimate(program, topology_name)
            table.append(found.line())
            details += ["", f"{found.name}, million cycles:", *found.details()]
            print(table[-1], flush=True)
    print(*details, sep="\n")
    if _APPEND.value:
        with DOCUMENT.open("a") as file:
            text = "\n".join(table)
            file.write(f"\n## {time.strftime('%Y-%m-%d')}, TPU\n\n{head}\n\n{text}\n")


if __name__ == "__main__":
    app.run(main)
