"""What the compiler for TPU expects of parsing and training: estimates, not measurements.

    pip install -e '.[tpu]'
    python -m benchmarks.tpu                                    # all, which takes hours
    python -m benchmarks.tpu --topology v5e:2x2 --only parse,joint --append

No TPU is needed: libtpu compiles for a machine that is only described. Beside most operations it
writes the cycles that it expects; time is their sum, as if nothing overlapped, and what has no
estimate (look-ups, what chips exchange) is counted apart.
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
from benchmarks.inputs import BATCH, FRAME, PATCH
from benchmarks.rows import parser, training_batch
from benchmarks.training import SCHEDULE, STAGES
from jax_stn_icnn.inference.parser import parse_frames
from jax_stn_icnn.io.weights import load_weights, weights_file
from jax_stn_icnn.train.optim import make_optimizer
from jax_stn_icnn.train.state import TrainState
from jax_stn_icnn.train.step import AXIS, map_train_step, shard

DOCUMENT = Path(__file__).parents[1] / "docs/notes/2026-11/performance_tables.md"
TOPOLOGIES = ("v5e:2x2", "v6e:2x2", "v5e:16x16")
# Cycles a second: the published peak by what the matrix units do in a cycle.
CLOCK = {"v5e": 1.50e9, "v6e": 1.75e9}
PLACES = (*(place for place, _ in hlo.PLACES), hlo.REST)
HEADER = (
    "| estimates, bfloat16 | compiled in | MB a chip (temporary) | million cycles | faces/s a chip "
    f"| MB exchanged | {' | '.join(PLACES)} | without an estimate |"
)
DTYPE = "bfloat16"
PLATFORM = "tpu"

_TOPOLOGY = flags.DEFINE_list("topology", list(TOPOLOGIES), "Chips, such as v5e:2x2.")
_ONLY = flags.DEFINE_list("only", None, "Some of the programs, such as parse or joint.")
_APPEND = flags.DEFINE_bool("append", False, f"Add the table to {DOCUMENT.name}.")


class Program(NamedTuple):
    """A program to compile.

    Attributes:
        name: what it does.
        faces: a chip.
        lower: traces it for a topology.
    """

    name: str
    faces: int
    lower: Callable[[Any], jax.stages.Lowered]


class Estimate(NamedTuple):
    """What the compiler says of a program.

    Attributes:
        name: of the program, with its topology.
        seconds: that compiling took.
        bytes: a chip: all, and the temporary ones.
        faces_per_second: of a chip, by the cycles.
        found: its operations.
    """

    name: str
    seconds: float
    bytes: tuple[int, int]
    faces_per_second: float
    found: list[hlo.Operation]

    def line(self) -> str:
        """A line of the table."""
        places = hlo.by(self.found, "place")
        missing = hlo.without_estimate(self.found)
        missing |= {"loops of unknown rounds": 1} if any(o.uncounted for o in self.found) else {}
        cells = [
            self.name,
            f"{self.seconds:.0f} s",
            f"{self.bytes[0] / 1e6:.0f} ({self.bytes[1] / 1e6:.0f})",
            f"{sum(places.values()) / 1e6:.1f}",
            f"{self.faces_per_second:.0f}",
            f"{sum(o.exchanged for o in self.found) / 1e6:.2f}",
            *(f"{places.get(place, 0) / 1e6:.1f}" for place in PLACES),
            ", ".join(f"{count} {kind}" for kind, count in missing.items()) or "none",
        ]
        return "| " + " | ".join(cells) + " |"

    def details(self) -> Iterator[str]:
        """Cycles by kind of operation, and the ten dearest operations."""
        kinds = hlo.by(self.found, "kind")
        yield ", ".join(f"{kind} {cycles / 1e6:.2f}" for kind, cycles in kinds.items())
        for operation in sorted(self.found, key=lambda o: o.cycles or 0, reverse=True)[:10]:
            yield (
                f"  {(operation.cycles or 0) / 1e6:8.3f}  {operation.kind}, {operation.place}: "
                f"{operation.path or operation.name}"
            )


def programs() -> list[Program]:
    """Parsing, of nine classes and by the full-face weights that ship, and each stage's step."""
    found = []
    for faces in (1, BATCH):
        for name, make in (("parse", _nine), ("full-face parse", _full_face)):
            found.append(Program(name, faces, functools.partial(_parse, make, faces)))
    for stage in STAGES:
        found.append(Program(stage, BATCH, functools.partial(_training_step, stage)))
    return found


def estimate(program: Program, topology_name: str) -> Estimate:
    """Compiles a program for chips that need not be there.

    Args:
        program: the program.
        topology_name: such as v5e:2x2.

    Returns:
        What the compiler says.

    Raises:
        ValueError: the clock of such chips is not known here.
    """
    chip = topology_name.split(":")[0]
    if chip not in CLOCK:
        raise ValueError(f"topology is {topology_name!r}, but must be of {', '.join(CLOCK)}")
    topology = topologies.get_topology_desc(platform=PLATFORM, topology_name=topology_name)
    lowered = program.lower(topology)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    found = hlo.operations(compiled.as_text() or "")
    cycles = sum(hlo.by(found, "place").values())
    return Estimate(
        f"{program.name}, {topology_name}, {program.faces} a chip",
        seconds,
        (held + memory.temp_size_in_bytes, memory.temp_size_in_bytes),
        program.faces * CLOCK[chip] / cycles,
        found,
    )


def _nine() -> tuple[Any, Any]:
    return parser(PATCH, FRAME, DTYPE, platform=PLATFORM)


def _full_face() -> tuple[Any, Any]:
    variables, model, _ = load_weights(weights_file("nineteen"))
    return model.clone(dtype=np.dtype(DTYPE), platform=PLATFORM), variables


def _parse(make: Callable[[], tuple[Any, Any]], faces: int, topology: Any) -> jax.stages.Lowered:
    """Frames spread over the chips, each chip parsing its own."""
    model, variables = make()
    chips = len(topology.devices)
    mesh = topologies.make_mesh(topology, (chips,), (AXIS,))

    def spread(shape: tuple[int, ...], dtype: Any, *axes: str) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    shapes = jax.tree.map(lambda leaf: spread(leaf.shape, leaf.dtype), variables)
    frames = spread((chips * faces, FRAME, FRAME, 3), np.uint8, AXIS)
    return parse_frames.lower(model, shapes, frames)


def _training_step(name: str, topology: Any) -> jax.stages.Lowered:
    """A stage's step as train.py maps it, without augmentation."""
    stage, chips = STAGES[name], len(topology.devices)
    model, variables = parser(PATCH, FRAME, DTYPE, AXIS, platform=PLATFORM)
    params = variables["params"]
    moments = make_optimizer(stage, *SCHEDULE).init(params)
    state = TrainState(np.int32(0), params, variables["batch_stats"], moments)
    one = shard(training_batch(BATCH, FRAME), 1)
    batch = {
        name: jax.ShapeDtypeStruct((chips, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in one.items()
    }
    step = map_train_step(model, stage, *SCHEDULE, augmented=False, devices=topology.devices)
    return step.lower(state, batch, np.uint32(0))


def main(argv: Sequence[str]) -> None:
    """Prints the table, and what is dearest."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    jax.config.update("jax_platforms", "cpu")
    # No TPU is asked for its surroundings, and other processes may compile meanwhile.
    os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    names = list(dict.fromkeys(program.name for program in programs()))
    only = _ONLY.value or names
    if unknown := [name for name in only if name not in names]:
        raise app.UsageError(f"--only: {', '.join(unknown)}, but must be some of {names}")
    wanted = [program for program in programs() if program.name in only]
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("jax", "libtpu"))
    head = f"Estimates of the compiler ({versions}), not measurements."
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
