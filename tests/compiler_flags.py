"""Flags of XLA that halve the compilation time of tests and pages.

Results do not depend on how well the compiler optimizes; `.ci/run` also compares with the
original code at the default level. Set them before JAX is imported.
"""

import importlib.metadata

FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1"  # The workers of pytest-xdist use all cores.
)
# jaxlib 0.12 has no such flag, and XLA ends the process at an unknown one.
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 12):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
