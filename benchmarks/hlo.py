"""What the text of a program compiled for TPU says: its operations, and the estimates of them.

The compiler writes the cycles that it expects beside most operations. It does not say them of
look-ups (`gather`), nor of what chips exchange; such operations are listed, not added up.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

# Where an operation belongs, by the first of these that its path of names holds.
PLACES = (
    ("paste", "jit(_paste"),
    ("crop", "jit(_crop"),
    ("fine", "/fine/"),
    ("localizer", "localiz"),
    ("coarse", "/coarse/"),
    ("join", ".join"),
)
REST = "rest"
# A fusion is named by the first of these that it holds.
TELLING = ("convolution", "dot", "gather", "scatter", "sort", "reduce-window", "reduce")
EXCHANGES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
# What may take long and has no estimate; of the rest without one, all is bookkeeping.
DEAR = (*TELLING, "elementwise")
BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8}

_HEAD = re.compile(r"(ENTRY )?%([\w.\-]+) .*\{$")
_LINE = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation that runs.

    Attributes:
        name: the compiler's.
        kind: what it does: `copy`, `convolution`, `gather`, ...
        place: the stage of the pipeline.
        path: names of the functions that it comes from.
        cycles: the compiler's estimate for all its runs; None where there is none.
        exchanged: bytes that each chip gives to others.
        uncounted: whether it is in a loop whose number of rounds the text does not say, so that
            one round is counted.
    """

    name: str
    kind: str
    place: str
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
    """All operations that run, those of a loop's body once with the cycles of its rounds.

    Args:
        text: the optimised program, of `jax.stages.Compiled.as_text`.

    Returns:
        The operations. Of a choice at run time, those of the branch with the most cycles.
    """
    computations, entry = _computations(text)
    return list(_running(computations, entry, 1, False))


def by(found: list[Operation], attribute: str) -> dict[str, float]:
    """Estimated cycles by `kind` or by `place`, the most first."""
    sums: dict[str, float] = collections.defaultdict(float)
    for operation in found:
        sums[getattr(operation, attribute)] += operation.cycles or 0
    dearest = sorted(sums.items(), key=lambda item: item[1], reverse=True)
    return {name: cycles for name, cycles in dearest if cycles}


def without_estimate(found: list[Operation]) -> dict[str, int]:
    """How many operations that may take long have no estimate, by kind."""
    kinds = (o.kind for o in found if o.cycles is None and o.kind in (*DEAR, *EXCHANGES))
    return dict(collections.Counter(kinds))


def _computations(text: str) -> tuple[dict[str, list[_Line]], str]:
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
        raise ValueError("the text holds no ENTRY: it must be that of a compiled program")
    return computations, entry


def _running(
    computations: Mapping[str, list[_Line]], name: str, rounds: int, uncounted: bool
) -> Iterator[Operation]:
    types = {line.name: line.type for line in computations[name]}
    for line in computations[name]:
        called = _CALLED.findall(line.rest)
        if line.opcode == "while":
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line.rest)
            times = int(trips[1]) if trips else 1
            yield from _running(computations, called[0], rounds * times, uncounted or trips is None)
        elif line.opcode == "conditional":
            branches = _BRANCHES.search(line.rest)
            names = re.findall(r"%([\w.\-]+)", branches[1]) if branches else called
            each = [list(_running(computations, one, rounds, uncounted)) for one in names]
            yield from max(each, key=lambda found: sum(o.cycles or 0 for o in found))
        elif line.opcode in ("call", "async-start"):
            yield from _running(computations, called[0], rounds, uncounted)
        else:
            inner = computations[called[0]] if line.opcode == "fusion" else []
            yield _operation(line, inner, types, rounds, uncounted)


def _operation(
    line: _Line, inner: list[_Line], types: Mapping[str, str], rounds: int, uncounted: bool
) -> Operation:
    kind = line.opcode.removesuffix("-start")
    if line.opcode == "fusion":
        held = {one.opcode for one in inner}
        kind = next((opcode for opcode in TELLING if opcode in held), "elementwise")
    cycles = re.search(r'"estimated_cycles":"(\d+)"', line.rest)
    path = re.search(r'op_name="([^"]*)"', line.rest)
    path_text = path[1] if path else ""
    exchanged = 0.0
    if kind in EXCHANGES and not line.opcode.endswith("-done"):
        operands = line.rest.split(")", 1)[0]
        exchanged = sum(_bytes(types.get(one, "")) for one in re.findall(r"%([\w.\-]+)", operands))
    return Operation(
        line.name,
        kind,
        next((place for place, word in PLACES if word in path_text), REST),
        path_text,
        rounds * int(cycles[1]) if cycles else None,
        rounds * exchanged,
        uncounted,
    )


def _bytes(type_text: str) -> float:
    """Of all arrays in a type, such as `(bf16[16,3]{1,0}, f32[])`."""
    total = 0.0
    for name, sides in _SHAPE.findall(type_text):
        bits = re.fullmatch(r"[su](\d+)", name)
        each = int(bits[1]) / 8 if bits else BYTES[name]
        total += each * math.prod(int(side) for side in sides.split(",") if side)
    return total
