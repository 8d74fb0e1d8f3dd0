from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jax_stn_icnn.compilation.cache import DIRECTORY, enable_cache
from jax_stn_icnn.compilation.compile import compile_program
from jax_stn_icnn.compilation.inlining import NAME, prevent_inlining
from jax_stn_icnn.models.layers import ConvNorm
from jax_stn_icnn.models.outlining import outlined_loss
from jax_stn_icnn.ops.platform import use_platform

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def restored():
    before = {name: jax.config.values[name] for name in NAMES}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    ("argument", "setting", "used"),
    [
        ("~/here", None, "{home}/here"),
        ("{home}/here", "{home}/there", "{home}/here"),
        ("", "{home}/there", ""),
        (None, "{home}/there", "{home}/there"),
        (None, "gs://bucket/programs", "gs://bucket/programs"),
        (None, None, DIRECTORY.replace("~", "{home}")),
    ],
)
def test_an_argument_overrides_the_setting(argument, setting, used, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    setting, argument = (text and text.format(home=tmp_path) for text in (setting, argument))
    jax.config.update("jax_compilation_cache_dir", setting)
    enable_cache(argument)
    assert jax.config.values["jax_compilation_cache_dir"] == used.format(home=tmp_path)
    assert jax.config.values["jax_persistent_cache_min_compile_time_secs"] == 0


@pytest.mark.parametrize("save_memory", [True, False])
def test_branches_are_computed_one_after_the_other_to_save_memory(save_memory):
    side, branches = 256, 8

    def total(x):
        def branch(i):
            x_sorted = jnp.sort(x + i)
            return jnp.vdot(x_sorted, x_sorted[::-1] * jnp.cumsum(x_sorted, 0))

        return sum(branch(i) for i in range(branches))

    x = jax.random.normal(jax.random.key(0), (side, side))
    compiled = compile_program(jax.jit(total).lower(x), save_memory=save_memory)
    np.testing.assert_allclose(compiled(x), jax.jit(total)(x), rtol=1e-5)
    assert (compiled.memory_analysis().temp_size_in_bytes < branches * x.nbytes) is save_memory


def test_functions_of_that_name_are_not_inlined():
    def function(x):
        return jnp.sin(x) * 2

    def twice(x, name):
        function.__name__ = name
        inner = jax.jit(function)
        return inner(inner(x) + 1) + x

    x = jnp.linspace(0, 1, 100)
    lowered = {name: jax.jit(twice, static_argnums=1).lower(x, name) for name in (NAME, "other")}
    programs = {name: prevent_inlining(each).compile() for name, each in lowered.items()}
    assert [programs[name].as_text().count(" call(") for name in (NAME, "other")] == [2, 0]
    for program in programs.values():
        np.testing.assert_allclose(program(x), twice(x, "directly"), rtol=1e-6)


class NetworkLoss(nn.Module):
    """A loss of a convolution with BatchNorm, computed as one function or directly."""

    outlined: bool

    @nn.compact
    def __call__(self, x, target):
        layer = ConvNorm(3, nn.tanh, name="layer")

        def loss(layer, x, target):
            return jnp.mean(jnp.where(target, layer(x, train=True), 1) ** 3)

        run = partial(outlined_loss, loss) if self.outlined else loss
        own = run(layer, x * 2, target)
        return 3 * own  # As the weights of losses scale them.


def test_an_outlined_loss_has_the_same_gradients():
    x = jax.random.normal(jax.random.key(0), (2, 2, 8, 6))
    target = jnp.arange(6) % 3 > 0
    variables = NetworkLoss(outlined=False).init(jax.random.key(1), x, target)

    def of(outlined):
        def loss(params, x):
            given = {**variables, "params": params}
            return NetworkLoss(outlined).apply(given, x, target, mutable=["batch_stats"])

        gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        program = prevent_inlining(gradient.lower(variables["params"], x)).compile()
        return program(variables["params"], x), program.as_text().count(" call(")

    (found, calls), (expected, _) = of(True), of(False)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )
    assert calls == 2  # The loss with its gradient, and the gradient times its cotangent.


@pytest.mark.parametrize(("platform", "outlined"), [("cpu", True), ("gpu", False), ("tpu", False)])
def test_only_a_cpu_computes_a_loss_and_its_gradient_as_a_function(platform, outlined):
    def loss(layer, x, target):
        return jnp.mean((layer(x) - target) ** 2)

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return outlined_loss(loss, nn.Dense(3, name="layer"), x, jnp.ones((2, 3)))

    x = jnp.ones((2, 4))
    variables = Network().init(jax.random.key(0), x)
    with use_platform(platform):
        text = jax.jit(jax.grad(Network().apply)).lower(variables, x).as_text()
    assert (NAME in text) is outlined
