"""Peak memory of joint training, in JAX and in PyTorch, each in a process of its own.

python -m benchmarks.memory 16      # peak of JAX for 16 faces, in bytes
"""

import sys

import jax

from benchmarks import process, training
from benchmarks.inputs import BATCH, FRAME, PATCH
from benchmarks.results import Result
from benchmarks.rows import Settings
from benchmarks.timing import Times


def measure(settings: Settings) -> list[Result]:
    """Returns the peaks in MB: of the GPU if there is one, otherwise of the process."""
    batch = settings.batch(BATCH)
    commands = {"ours": ["benchmarks.memory"], "torch": ["benchmarks.torch_child", "memory"]}
    values: dict[str, Times] = {}
    unavailable: dict[str, str] = {}
    for name, command in commands.items():
        try:
            values[name] = Times.of([process.measure("-m", *command, str(batch)) / 1e6])
        except ChildProcessError as error:
            unavailable[name] = str(error)
    title = f"peak memory of joint training, batch {batch}, frame {FRAME}, P {PATCH}"
    return [Result(title, "MB", values, unavailable)]


def main() -> None:
    """Takes joint steps in JAX and reports the peak."""
    call = training.ours("joint", int(sys.argv[1]))
    for _ in range(process.MEMORY_STEPS):
        call()
    if jax.default_backend() == "gpu":
        process.report(jax.devices()[0].memory_stats()["peak_bytes_in_use"])
    else:
        process.report(process.peak_bytes())


if __name__ == "__main__":
    main()
