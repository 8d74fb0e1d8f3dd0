"""What is measured in a process of its own: how such a process starts, and what it tells."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
MEMORY_STEPS = 2
SAYS = "measured: "


def say(value: float) -> None:
    """Tells the process that started this one what was measured."""
    print(f"{SAYS}{value}", flush=True)


def age() -> float:
    """Seconds since this process began, its imports included."""
    status = Path("/proc/self/stat")
    if status.exists():  # Linux, where psutil counts from a boot rounded down to a whole second.
        # Fields after the name, which may hold spaces; the 22nd of all is the start, after boot.
        ticks = int(status.read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - psutil.Process().create_time()


def peak_bytes() -> int:
    """The most memory that this process has had at once."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux. Its ru_maxrss would count the process that started this one, too.
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ask(*arguments: str) -> float:
    """Runs a Python process, and returns what it measured.

    Raises:
        ChildProcessError: it failed; the message is its last line.
    """
    lines = [line for line in run(*arguments).splitlines() if line.startswith(SAYS)]
    return float(lines[-1].removeprefix(SAYS))


def run(*arguments: str) -> str:
    """What a Python process prints.

    Raises:
        ChildProcessError: it failed; the message is its last line.
    """
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ChildProcessError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return done.stdout
