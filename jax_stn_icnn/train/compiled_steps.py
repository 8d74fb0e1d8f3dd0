"""The compiled training steps of a run; a later stage's step is compiled while a stage trains."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax

from jax_stn_icnn.data.loader import Batch
from jax_stn_icnn.train.stages import Phase
from jax_stn_icnn.train.step import Step


class StageSteps:
    """The step of each stage, compiled once."""

    def __init__(self, phases: Sequence[Phase], compile: Callable[[Phase, Batch], Step]):
        """Stores the arguments; nothing is compiled yet.

        Args:
            phases: The phases of the run, in order.
            compile: Compiles the step of a phase for the shapes of any batch; another thread may
                call it.
        """
        self._phases, self._compile = phases, compile
        self._executor = ThreadPoolExecutor(1)
        self._in_background = _can_compile_in_background(self._executor)
        self._steps: dict[str, Callable[[], Step]] = {}  # stage -> compiles, or waits

    def get(self, phase: Phase, batch: Batch) -> Step:
        """Returns the step of a phase, compiled now or in the background."""
        name = phase.stage.name
        if name not in self._steps:
            self._steps[name] = functools.cache(functools.partial(self._compile, phase, batch))
        return self._steps[name]()

    def compile_later_stages(self, phase: Phase, batch: Batch) -> None:
        """Starts to compile the steps of the stages after a phase in the background, once."""
        for later in self._phases[self._phases.index(phase) + 1 :]:
            name = later.stage.name
            if self._in_background and name not in self._steps:
                self._steps[name] = self._executor.submit(self._compile, later, batch).result

    def close(self) -> None:
        """Cancels the compilations that have not started."""
        # Does not wait for the one that has: Python waits for threads when it exits.
        self._executor.shutdown(wait=False, cancel_futures=True)


def _can_compile_in_background(executor: ThreadPoolExecutor) -> bool:
    """Returns whether a thread compiles the same program without disturbing the training."""
    # On a GPU the compiler measures kernels on the device. Several processes compile at the first
    # call. JAX's settings in a `with` block of the caller hold for the caller's thread only.
    return (
        jax.default_backend() != "gpu"
        and jax.process_count() == 1
        and executor.submit(lambda: jax.config.values).result() == jax.config.values
    )
