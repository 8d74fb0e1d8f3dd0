"""The choice of implementations by the platform."""

import jax
import jax.numpy as jnp
import pytest

from jax_stn_icnn.ops.platform import (
    IMPLEMENTATIONS,
    current_implementations,
    use_platform,
)


def test_the_default_is_the_backends():
    assert current_implementations() == IMPLEMENTATIONS[jax.default_backend()]


@pytest.mark.parametrize("platform", IMPLEMENTATIONS)
def test_a_platform_is_used_within_its_context_only(platform):
    with use_platform(platform):
        assert current_implementations() == IMPLEMENTATIONS[platform]
    assert current_implementations() == IMPLEMENTATIONS["cpu"]


def test_a_compiled_function_is_traced_again_for_another_platform():
    traced_for = []

    @jax.jit
    def function(x):
        traced_for.append(current_implementations())
        return x

    for platform in ("cpu", "tpu", "cpu"):
        with use_platform(platform):
            function(jnp.zeros(3))
    assert traced_for == [IMPLEMENTATIONS["cpu"], IMPLEMENTATIONS["tpu"]]


def test_an_unknown_platform_is_named():
    with pytest.raises(ValueError, match="platform is 'npu', but must be one of cpu, gpu"):
        use_platform("npu")
