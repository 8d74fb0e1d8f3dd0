"""Measurements in processes of their own: starting a process, and reporting its measurement."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
MEMORY_STEPS = 2
PREFIX = "measured: "


def report(value: float) -> None:
    """Prints a measurement for the process that calls `measure`."""
    print(f"{PREFIX}{value}", flush=True)


def age() -> float:
    """Returns the seconds since this process started, its imports included."""
    status = Path("/proc/self/stat")
    if status.exists():  # On Linux, psutil counts from a boot time rounded down to whole seconds.
        # The fields follow the name, which may contain spaces; field 22 is the start after boot.
        ticks = int(status.read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - psutil.Process().create_time()


def peak_bytes() -> int:
    """Returns the peak memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # On Linux, ru_maxrss includes the memory of the parent process.
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(*arguments: str) -> float:
    """Runs a Python process and returns the measurement that it reports.

    Args:
        *arguments: Arguments of the Python interpreter.

    Returns:
        The last value given to `report`.

    Raises:
        ChildProcessError: The process failed; the message is its last line.
    """
    lines = [line for line in run(*arguments).splitlines() if line.startswith(PREFIX)]
    return float(lines[-1].removeprefix(PREFIX))


def run(*arguments: str) -> str:
    """Runs a Python process and returns its output.

    Args:
        *arguments: Arguments of the Python interpreter.

    Raises:
        ChildProcessError: The process failed; the message is its last line.
    """
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ChildProcessError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return done.stdout
