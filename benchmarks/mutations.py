"""Reads mutated inputs: each gives a result or one clear message, in bounded memory and time.

    python -m benchmarks.mutations --count 10000 --seed 0
    python -m benchmarks.mutations --first 4711 --count 1 --seed 0    # one of these cases again

`mutated_inputs.py` defines the kinds of inputs, which take turns. A child process reads them. It is
a fault if the process ends, takes too long or too much memory, if an error is of another type than
the reader documents, if its message does not name the file or has too many lines, or if a file
outside of the target folder is written. Faults are printed, and the exit status is 1.
"""

import argparse
import contextlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.mutated_inputs import KINDS, Kind
from benchmarks.mutation_operations import Files
from benchmarks.process import peak_bytes
from jax_stn_icnn.compilation.cache import enable_cache
from jax_stn_icnn.photos.reading import silence_decoders

if sys.platform != "win32":
    import resource

SECONDS = 30.0  # limit of a case; most take a hundredth
MEGABYTES = 1500  # limit of the memory that a case adds; the largest permitted photo takes half
CANARY = "canary"  # a file beside the target folder
# Python's audit events of what creates files -> number of arguments that are paths.
CHANGES = {"open": 1, "os.mkdir": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2}


class Outcome(NamedTuple):
    """The outcome of a case.

    Attributes:
        name: `result`, or the type of the error.
        fault: What is wrong; empty if nothing is.
        megabytes: Memory that the case added.
    """

    name: str
    fault: str = ""
    megabytes: float = 0.0


def examine(
    kind: Kind, files: Files, parent: Path, log: Path, written: Sequence[str] = ()
) -> Outcome:
    """Reads an input in a new folder.

    Args:
        kind: The kind of the input.
        files: The input.
        parent: The folder that contains the input's folder.
        log: The file that standard error goes to.
        written: Paths elsewhere that this process has changed, as a list that grows.
    """
    folder = parent / "target"
    paths = {parent / CANARY: b"unchanged"} | {folder / n: data for n, data in files.items()}
    for path, data in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    before, earlier = _reset_peak(), len(written)
    os.truncate(log, 0)
    name, text, fault = "result", "", ""
    try:
        kind.read(folder)
    except kind.errors as error:
        name, text = type(error).__name__, str(error)
        fault = "" if str(folder) in text else "the message names no file"
    except Exception as error:
        name, fault = type(error).__name__, traceback.format_exc()
    added = (peak_bytes() - before) / 1e6
    text = "\n".join(filter(None, [text, log.read_text(errors="replace").strip()]))
    if not fault and ("Traceback" in text or len(text.splitlines()) > kind.lines):
        fault = "the message has too many lines"
    if added > MEGABYTES:
        fault = f"{fault}\nit took {added:.0f} MB of memory"
    # Libraries in C write unseen by Python.
    outside = [str(path) for path in parent.iterdir() if path not in (folder, parent / CANARY)]
    outside += written[earlier:]
    outside += [CANARY] if (parent / CANARY).read_bytes() != b"unchanged" else []
    if outside:
        fault = f"{fault}\nit wrote outside of its folder: {', '.join(outside)}"
    shutil.rmtree(parent)
    return Outcome(name, f"{fault}: {text}".strip() if fault else "", added)


def _record_writes(parent: Path, found: list[str]) -> None:
    """Records paths outside of a folder that Python code of this process changes from now on."""

    def record(event: str, args: tuple[Any, ...]) -> None:
        reads = event == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event not in CHANGES or reads:
            return
        for path in args[: CHANGES[event]]:
            if isinstance(path, str | bytes | os.PathLike):
                path = os.path.abspath(os.fsdecode(path))
                if not path.startswith((f"{parent}/", "/dev/", "/proc/")):
                    found.append(path)

    sys.addaudithook(record)


def _reset_peak() -> int:
    """Sets the peak memory of this process to the present one, and returns it."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def _serve(
    pipe: Connection, kinds: Mapping[str, Kind], samples: Mapping[str, list[Files]], parent: Path
) -> None:
    """Reads the inputs whose kind and seed come through a pipe, in a process of its own."""
    log = parent / "log"
    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    enable_cache("")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    tempfile.tempdir = tempfile.mkdtemp(dir=parent)
    silence_decoders()  # as `stn-icnn parse` does
    for name, kind in kinds.items():  # imports libraries
        for files in samples[name]:
            if (outcome := examine(kind, files, parent / "case", log)).name != "result":
                raise ValueError(f"{name}, {', '.join(files)}: an intact input fails: {outcome}")
    written: list[str] = []
    _record_writes(parent, written)
    # More than a case may take, so that the machine stays usable while one does.
    if sys.platform != "win32":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 4 * MEGABYTES * 10**6
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    pipe.send("ready")
    with contextlib.suppress(EOFError):  # at the end of the other process
        while True:
            name, seed = pipe.recv()
            files = kinds[name].change(samples[name], np.random.default_rng(seed))
            pipe.send(examine(kinds[name], files, parent / "case", log, written))


class Reader:
    """A child process that reads inputs; another one starts after it ends or hangs."""

    def __init__(self, kinds: Mapping[str, Kind], seconds: float = SECONDS):
        """Starts the process.

        Args:
            kinds: The kinds of inputs by name.
            seconds: Limit of a case.

        Raises:
            ChildProcessError: It does not start.
        """
        self._kinds, self._seconds = kinds, seconds
        self._samples = {name: kind.make() for name, kind in kinds.items()}
        self._folder = tempfile.TemporaryDirectory()
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        parent = Path(self._folder.name)
        shutil.rmtree(parent / "case", ignore_errors=True)
        os.environ["TQDM_DISABLE"] = "1"  # progress is no message
        arguments = (other, self._kinds, self._samples, parent)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        other.close()
        try:
            self._pipe.recv()
        except EOFError:
            log = (parent / "log").read_text(errors="replace")
            raise ChildProcessError(f"the process that reads does not start:\n{log}") from None

    def read(self, name: str, seed: tuple[int, ...]) -> Outcome:
        """Returns the outcome of the case of a kind and a seed."""
        self._pipe.send((name, seed))
        try:
            if self._pipe.poll(self._seconds):
                return self._pipe.recv()
            outcome = Outcome("hang", f"it is not ready after {self._seconds:.0f} s")
        except EOFError:
            self._process.join()
            log = Path(self._folder.name, "log").read_text(errors="replace")
            outcome = Outcome("end", f"the process ends with {self._process.exitcode}: {log}")
        self.close()
        self._start()
        return outcome

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(1)
        self._process.kill()  # if it hangs
        self._process.join()


def run(
    reader: Reader, names: list[str], cases: range, seed: int
) -> Iterator[tuple[int, str, Outcome]]:
    """Yields number, kind and outcome of each case.

    Args:
        reader: The process that reads.
        names: Names of the kinds, which take turns.
        cases: Numbers of the cases.
        seed: Seed of all cases.
    """
    for case in cases:
        name = names[case % len(names)]
        yield case, name, reader.read(name, (seed, case))


def main() -> None:
    """Runs the command."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=300, help="number of cases")
    arguments.add_argument("--first", type=int, default=0, help="number of the first case")
    arguments.add_argument("--seed", type=int, default=0, help="seed of all cases")
    args = arguments.parse_args()
    names: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
    memory = dict.fromkeys(KINDS, 0.0)
    faults = 0
    reader = Reader(KINDS)
    cases = range(args.first, args.first + args.count)
    for case, kind, outcome in run(reader, list(KINDS), cases, args.seed):
        names[kind][outcome.name] += 1
        memory[kind] = max(memory[kind], outcome.megabytes)
        if outcome.fault:
            faults += 1
            print(f"case {case}, {kind}: {outcome.fault}\n", flush=True)
    reader.close()
    for kind, counter in names.items():
        counts = ", ".join(f"{count} {name}" for name, count in counter.most_common())
        print(f"{kind}: {counts}; at most {memory[kind]:.0f} MB of memory")
    print(f"{args.count} cases, {faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
