"""Random changes of the bytes of files."""

import re
from collections.abc import Callable

import numpy as np

Files = dict[str, bytes]  # content of each file of an input, by relative path
Operation = Callable[[bytes, bytes, np.random.Generator], bytes]


def mutate(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Returns data after one to three random operations.

    Args:
        data: The content of a file.
        other: The content of another file, of which parts are inserted.
        rng: Determines operations, places and values.
    """
    for number in rng.integers(len(OPERATIONS), size=rng.integers(1, 4)):
        data = OPERATIONS[number](data, other, rng)
    return data


def mutate_file(files: Files, rng: np.random.Generator) -> Files:
    """Returns files of which one is mutated, or of several in one of eight cases removed."""
    name, other = (list(files)[rng.integers(len(files))] for _ in range(2))
    if len(files) > 1 and rng.integers(8) == 0:
        return {key: data for key, data in files.items() if key != name}
    return files | {name: mutate(files[name], files[other], rng)}


def _span(data: bytes, rng: np.random.Generator) -> slice:
    """Returns a random block, of any order of magnitude."""
    start = int(rng.integers(len(data) + 1))
    return slice(start, start + int(2 ** rng.uniform(0, np.log2(len(data) + 2))))


def _flip_bits(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(len(data), size=rng.integers(1, 9)) if data else ():
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _truncate(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data) + 1)]


def _zero(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    span = _span(data, rng)
    return data[: span.start] + bytes(len(data[span])) + data[span.stop :]


def _remove(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    span = _span(data, rng)
    return data[: span.start] + data[span.stop :]


def _repeat(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    span = _span(data, rng)
    return data[: span.stop] + data[span.start :]


def _splice(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data) + 1)] + other[rng.integers(len(other) + 1) :]


def _set_field(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Overwrites an integer, in half of the cases in the header."""
    size = int(rng.choice([1, 2, 4, 8]))
    largest = 256**size - 1
    value = int(rng.choice([0, 1, largest // 2, largest // 2 + 1, largest])) % (largest + 1)
    place = int(rng.integers((min(len(data), 64) if rng.integers(2) else len(data)) + 1))
    field = value.to_bytes(size, "little" if rng.integers(2) else "big")
    return data[:place] + field + data[place + size :]


_TOKEN = re.compile(rb'-?\d+(?:\.\d+)?|"[^"]*"|true|false|null')
_NUMBERS = (b"0", b"-1", b"3", b"255", b"2147483648", b"1e400", b"0.5", b"NaN", b"9" * 5000)
_WORDS = (b"null", b"true", b'""', b"[]", b"{}", b"[1]", b'"../outside"', b'"\\ud800"')
_VALUES = (*_NUMBERS, *_WORDS, b"[" * 100_000)


def _set_token(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Replaces a number or a word of JSON."""
    tokens = list(_TOKEN.finditer(data))
    if not tokens:
        return data
    token = tokens[rng.integers(len(tokens))]
    value = _VALUES[rng.integers(len(_VALUES))]
    return data[: token.start()] + value + data[token.end() :]


OPERATIONS: tuple[Operation, ...] = (
    *(_flip_bits, _truncate, _zero, _remove, _repeat, _splice, _set_field, _set_token),
)
