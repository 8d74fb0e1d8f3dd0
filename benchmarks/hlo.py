"""Reads a program compiled for TPU: its operations, and the compiler's estimates of their cycles.

The compiler writes estimated cycles for most operations, but not for gathers and for the exchange
between chips; such operations are listed separately.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

# Stage of the pipeline -> a part of the operation's path; the first match counts.
STAGES = (
    ("paste", "jit(paste"),
    ("crop", "jit(_crop"),
    ("fine", "fine_stage"),
    ("localizer", "localize"),
    ("coarse", "coarse_stage"),
    ("merge", ".merge"),
)
OTHER = "other"
# Kinds of a fusion; the first one that it contains counts.
FUSION_KINDS = ("convolution", "dot", "gather", "scatter", "sort", "reduce-window", "reduce")
EXCHANGES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
# Kinds that may take long if they have no estimate; other kinds without one are negligible.
EXPENSIVE = (*FUSION_KINDS, "elementwise")
BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8}

_HEAD = re.compile(r"(ENTRY )?%([\w.\-]+) .*\{$")
_LINE = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of a program.

    Attributes:
        name: The compiler's name.
        kind: `copy`, `convolution`, `gather`, ...
        stage: The stage of the pipeline.
        path: Names of the functions that it was traced in.
        cycles: Estimated cycles of all its executions; None without an estimate.
        exchanged: Bytes that each chip sends to others.
        uncounted: Whether it is in a loop of unknown length, of which one iteration is counted.
    """

    name: str
    kind: str
    stage: str
    path: str
    cycles: float | None
    exchanged: float
    uncounted: bool


@dataclasses.dataclass(frozen=True)
class _Line:
    name: str
    type: str
    opcode: str
    rest: str


def operations(text: str) -> list[Operation]:
    """Returns all operations that are executed; those of a loop once, with the cycles of the loop.

    Args:
        text: The optimized program, as `jax.stages.Compiled.as_text` returns it.

    Returns:
        The operations; of a conditional, those of the branch with the most cycles.

    Raises:
        ValueError: The text is not that of a compiled program.
    """
    computations, entry = _computations(text)
    return list(_executed(computations, entry, 1, False))


def cycles_by(found: list[Operation], attribute: str) -> dict[str, float]:
    """Returns the estimated cycles by `kind` or by `stage`, the largest first."""
    sums: dict[str, float] = collections.defaultdict(float)
    for operation in found:
        sums[getattr(operation, attribute)] += operation.cycles or 0
    largest_first = sorted(sums.items(), key=lambda item: item[1], reverse=True)
    return {name: cycles for name, cycles in largest_first if cycles}


def without_estimate(found: list[Operation]) -> dict[str, int]:
    """Returns the number of operations that may take long and have no estimate, by kind."""
    kinds = (o.kind for o in found if o.cycles is None and o.kind in (*EXPENSIVE, *EXCHANGES))
    return dict(collections.Counter(kinds))


def _computations(text: str) -> tuple[dict[str, list[_Line]], str]:
    """Returns the lines of each computation, and the name of the program's entry."""
    computations: dict[str, list[_Line]] = {}
    entry, lines = "", None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            lines = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            lines = None
        elif lines is not None and (found := _LINE.match(line)):
            lines.append(_Line(*found.groups()))
    if not entry:
        raise ValueError("the text has no ENTRY, but must be that of a compiled program")
    return computations, entry


def _executed(
    computations: Mapping[str, list[_Line]], name: str, times: int, uncounted: bool
) -> Iterator[Operation]:
    """Yields the operations of a computation that is executed a number of times."""
    types = {line.name: line.type for line in computations[name]}
    for line in computations[name]:
        called = _CALLED.findall(line.rest)
        if line.opcode == "while":
            match = re.search(r'"known_trip_count":\{"n":"(\d+)"', line.rest)
            trips = int(match[1]) if match else 1
            yield from _executed(computations, called[0], times * trips, uncounted or match is None)
        elif line.opcode == "conditional":
            match = _BRANCHES.search(line.rest)
            names = re.findall(r"%([\w.\-]+)", match[1]) if match else called
            branches = [list(_executed(computations, one, times, uncounted)) for one in names]
            yield from max(branches, key=lambda found: sum(o.cycles or 0 for o in found))
        elif line.opcode in ("call", "async-start"):
            yield from _executed(computations, called[0], times, uncounted)
        else:
            fused = computations[called[0]] if line.opcode == "fusion" else []
            yield _operation(line, fused, types, times, uncounted)


def _operation(
    line: _Line, fused: list[_Line], types: Mapping[str, str], times: int, uncounted: bool
) -> Operation:
    kind = line.opcode.removesuffix("-start")
    if line.opcode == "fusion":
        opcodes = {one.opcode for one in fused}
        kind = next((opcode for opcode in FUSION_KINDS if opcode in opcodes), "elementwise")
    cycles = re.search(r'"estimated_cycles":"(\d+)"', line.rest)
    match = re.search(r'op_name="([^"]*)"', line.rest)
    path = match[1] if match else ""
    exchanged = 0.0
    if kind in EXCHANGES and not line.opcode.endswith("-done"):
        operands = line.rest.split(")", 1)[0]
        exchanged = sum(_bytes(types.get(one, "")) for one in re.findall(r"%([\w.\-]+)", operands))
    return Operation(
        line.name,
        kind,
        next((stage for stage, word in STAGES if word in path), OTHER),
        path,
        times * int(cycles[1]) if cycles else None,
        times * exchanged,
        uncounted,
    )


def _bytes(type_text: str) -> float:
    """Returns the bytes of all arrays of a type, such as `(bf16[16,3]{1,0}, f32[])`."""
    total = 0.0
    for name, sides in _SHAPE.findall(type_text):
        bits = re.fullmatch(r"[su](\d+)", name)
        size = int(bits[1]) / 8 if bits else BYTES[name]
        total += size * math.prod(int(side) for side in sides.split(",") if side)
    return total
