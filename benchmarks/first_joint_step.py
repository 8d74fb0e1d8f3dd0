"""Takes the first joint step of a process and reports the seconds from the process's start.

python -m benchmarks.first_joint_step DIR     # DIR caches compiled programs; "" disables the cache
"""

import sys

import jax

from benchmarks import process
from benchmarks.inputs import BATCH
from benchmarks.training import compile_step
from jax_stn_icnn.compilation.cache import enable_cache


def main() -> None:
    """Runs the command."""
    enable_cache(sys.argv[1])
    step, state, batch = compile_step("joint", BATCH)
    print(f"the program is ready after {process.age():.1f} s", flush=True)
    jax.block_until_ready(step(state, batch))
    process.report(process.age())


if __name__ == "__main__":
    main()
