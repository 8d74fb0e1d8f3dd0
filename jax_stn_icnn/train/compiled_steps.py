"""The compiled training steps of a run, those of later stages compiled while an earlier trains."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax

from jax_stn_icnn.data.loader import Batch
from jax_stn_icnn.train.stages import Phase
from jax_stn_icnn.train.step import Step


class StageSteps:
    """The step of each stage, compiled once."""

    def __init__(
        self, phases: Sequence[Phase], prepare: Callable[[Phase, Batch], Callable[[], Step]]
    ):
        """Compiles nothing yet.

        Args:
            phases: of the run.
            prepare: of a phase and any batch, for its shapes: what compiles the step, and may be
                called by another thread.
        """
        self._phases = phases
        self._prepare = prepare
        self._compiler = ThreadPoolExecutor(1)
        self._ahead = _may_compile_ahead(self._compiler)
        self._steps: dict[str, Callable[[], Step]] = {}  # stage -> what compiles, or waits

    def step(self, phase: Phase, batch: Batch) -> Step:
        """The compiled step of a stage; the batch may be any, for its shapes."""
        name = phase.stage.name
        if name not in self._steps:
            self._steps[name] = functools.cache(self._prepare(phase, batch))
        return self._steps[name]()

    def compile_later(self, phase: Phase, batch: Batch) -> None:
        """Has a thread compile the steps of the stages after this, unless it is on them already."""
        for later in self._phases[self._phases.index(phase) + 1 :]:
            if self._ahead and later.stage.name not in self._steps:
                future = self._compiler.submit(self._prepare(later, batch))
                self._steps[later.stage.name] = future.result

    def close(self) -> None:
        """Begins no further compilation."""
        # Not waited for here, so that the run's last words come first; Python waits before it ends.
        self._compiler.shutdown(wait=False, cancel_futures=True)


def _may_compile_ahead(compiler: ThreadPoolExecutor) -> bool:
    # For a GPU the compiler tries kernels out on the device itself: not beside training. Of several
    # processes each compiles at its first call. And JAX's settings that a `with` block of the
    # caller gives hold in the caller's thread only.
    return (
        jax.default_backend() != "gpu"
        and jax.process_count() == 1
        and compiler.submit(lambda: jax.config.values).result() == jax.config.values
    )
