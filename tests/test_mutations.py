"""Mutated inputs give results or clear messages, and the script finds it if they do not."""

import os
import time

import numpy as np
import pytest

from benchmarks.mutated_inputs import KINDS, Kind
from benchmarks.mutation_operations import OPERATIONS, mutate, mutate_file
from benchmarks.mutations import Reader, run

CASES = 300

# Each case reads files of many libraries in a process of its own.
pytestmark = pytest.mark.slow


def test_mutated_inputs_give_results_or_one_clear_message():
    reader = Reader(KINDS)
    found = list(run(reader, list(KINDS), range(CASES), seed=1))
    reader.close()
    assert [(case, kind, one.fault) for case, kind, one in found if one.fault] == []
    # The inputs are neither all refused nor all unchanged.
    assert {kind for _, kind, one in found if one.name == "result"} == set(KINDS)
    assert {kind for _, kind, one in found if one.name != "result"} >= {"pictures", "configs"}


def make():
    return [{"name": b"intact"}]


def change(samples, rng):
    return {"name": b"changed"}


class Fault:
    """A reader with a fault, which shows for inputs that are not intact."""

    def __init__(self, name):
        self.name = name

    def __call__(self, folder):
        if (folder / "name").read_bytes() != b"intact":
            getattr(self, self.name)(folder)

    def other_type(self, folder):
        raise KeyError(str(folder))

    def no_name(self, folder):
        raise ValueError("a problem")

    def many_lines(self, folder):
        raise ValueError(f"{folder}:\n  a problem\n  another")

    def print(self, folder):
        os.write(2, b"one\ntwo\n")

    def memory(self, folder):
        np.ones(16 * 10**8, np.uint8)

    def hang(self, folder):
        time.sleep(100)

    def end(self, folder):
        os._exit(3)

    def outside(self, folder):
        (folder.parent / "outside").write_bytes(b"")

    def elsewhere(self, folder):
        os.makedirs("elsewhere", exist_ok=True)

    def canary(self, folder):
        (folder.parent / "canary").write_bytes(b"")

    def none(self, folder):
        raise ValueError(f"{folder}: a problem")


FAULTS = {
    "other_type": "KeyError",
    "no_name": "the message names no file",
    "many_lines": "too many lines",
    "print": "too many lines",
    "memory": "MB of memory",
    "hang": "not ready after 5 s",
    "end": "the process ends with 3",
    "outside": "it wrote outside of its folder: .*outside",
    "elsewhere": "it wrote outside of its folder: .*elsewhere",
    "canary": "it wrote outside of its folder: .*canary",
}


def test_each_fault_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = {name: Kind(make, change, Fault(name), (ValueError,)) for name in (*FAULTS, "none")}
    reader = Reader(kinds, seconds=5)
    found = {kind: one.fault for _, kind, one in run(reader, list(kinds), range(len(kinds)), 0)}
    reader.close()
    assert found.pop("none") == ""
    for name, message in FAULTS.items():
        with pytest.raises(ValueError, match=message):
            raise ValueError(found[name])


def test_mutations_are_determined_by_the_seed():
    files = {"a": bytes(range(256)), "b": b'{"number": 12}'}
    first, again, other = (mutate_file(files, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("data", [b"", b"a", b'{"number": 12}', bytes(range(256))])
def test_any_data_can_be_mutated(data):
    results = {mutate(data, b"other", np.random.default_rng(seed)) for seed in range(200)}
    assert len(results) > len(OPERATIONS)
