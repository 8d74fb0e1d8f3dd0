"""Memory that the process keeps, seen from outside: pages fetched when it is used again."""

import platform
import subprocess
import sys

import pytest

# 256 MB, taken and freed again and again by a thread of the computation, as a step does.
FAULTS = """
import resource
import jax, jax.numpy as jnp
from jax_stn_icnn.host_memory import keep_memory
if {keep}:
    keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step = jax.jit(lambda x: jnp.cumsum(jnp.outer(x, x), axis=0).sum())
x = jnp.ones(8192)
for _ in range(2):
    step(x).block_until_ready()
before = faults()
step(x).block_until_ready()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc")
@pytest.mark.parametrize(("keep", "few"), [(True, True), (False, False)])
def test_memory_is_fetched_once(keep, few):
    code = FAULTS.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (int(done.stdout) < 10_000) == few  # of 65,536 pages
