"""Runs train.py until the end of its first step and reports the seconds from the process's start.

python -m benchmarks.first_step --config.dataset.data_dir=DIR --compilation_cache=DIR
"""

import functools
import os
from typing import Any

import jax
from absl import app

import train
from benchmarks import process
from jax_stn_icnn.train import loop
from jax_stn_icnn.train.step import Step, compile_train_step


def compile_first_step(*args: Any, **options: Any) -> Step:
    """Returns the step of `compile_train_step`; after its first call it ends the process."""
    take_step = compile_train_step(*args, **options)

    def first_step(state: Any, batch: Any) -> Any:
        jax.block_until_ready(take_step(state, batch))
        process.report(process.age())
        os._exit(0)  # Skips saving and waiting for threads.

    return first_step


def main() -> None:
    """Runs the command."""
    loop.train_and_evaluate = functools.partial(
        loop.train_and_evaluate, compile_step=compile_first_step
    )
    app.run(train.main)


if __name__ == "__main__":
    main()
