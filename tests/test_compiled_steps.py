import contextlib
import threading

import jax
import pytest

from jax_stn_icnn.train.compiled_steps import StageSteps
from jax_stn_icnn.train.stages import Phase, Stage

PHASES = [
    Phase(Stage(name, 1, {name: 1.0}, {name: 1.0}), i, i + 1)
    for i, name in enumerate(("coarse", "localizer", "fine"))
]


class Compiler:
    """Records stage and thread of each compilation, and returns the stage's name as its step."""

    def __init__(self):
        self.compiled = []

    def __call__(self, phase, batch):
        self.compiled.append((phase.stage.name, threading.current_thread()))
        return phase.stage.name


def get_all(compiler):
    """Gets the step of each stage, twice, as a run does."""
    steps, found = StageSteps(PHASES, compiler), []
    with contextlib.closing(steps):
        for phase in PHASES:
            found += [steps.get(phase, {}), steps.get(phase, {})]
            steps.compile_later_stages(phase, {})
    assert found == ["coarse"] * 2 + ["localizer"] * 2 + ["fine"] * 2


def test_later_stages_are_compiled_once_in_one_other_thread():
    compiler = Compiler()
    get_all(compiler)
    (first, here), (second, there), (third, again) = compiler.compiled
    assert (first, second, third) == ("coarse", "localizer", "fine")
    assert here is threading.main_thread() is not there is again


@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        ("gpu", contextlib.nullcontext()),  # where the compiler measures kernels
        ("cpu", jax.default_matmul_precision("highest")),  # which other threads do not see
    ],
)
def test_a_stage_is_compiled_at_its_start_if_not_in_the_background(backend, settings, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    compiler = Compiler()
    with settings:
        get_all(compiler)
    main = threading.main_thread()
    assert compiler.compiled == [("coarse", main), ("localizer", main), ("fine", main)]
