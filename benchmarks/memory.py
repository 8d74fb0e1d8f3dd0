"""The peak memory of joint training, ours and PyTorch's, each in a process of its own.

python -m benchmarks.memory 16      # ours, of this batch, in bytes
"""

import sys

import jax

from benchmarks import process, training
from benchmarks.inputs import BATCH, FRAME, PATCH
from benchmarks.results import Result
from benchmarks.rows import Settings
from benchmarks.timing import Times


def measure(settings: Settings) -> list[Result]:
    """The peaks in MB: of the process on the host, or of the GPU where there is one."""
    batch = settings.batch(BATCH)
    commands = {"ours": ["benchmarks.memory"], "torch": ["benchmarks.torch_child", "memory"]}
    values: dict[str, Times] = {}
    absent: dict[str, str] = {}
    for name, command in commands.items():
        try:
            megabytes = process.ask("-m", *command, str(batch)) / 1e6
            values[name] = Times(megabytes, megabytes, megabytes)
        except ChildProcessError as error:
            absent[name] = str(error)
    title = f"peak memory of joint training, batch {batch}, frame {FRAME}, P {PATCH}"
    return [Result(title, "MB", values, absent)]


def main() -> None:
    """Takes joint steps, and says the peak."""
    call = training.ours("joint", int(sys.argv[1]))
    for _ in range(process.MEMORY_STEPS):
        call()
    if jax.default_backend() == "gpu":
        process.say(jax.devices()[0].memory_stats()["peak_bytes_in_use"])
    else:
        process.say(process.peak_bytes())


if __name__ == "__main__":
    main()
