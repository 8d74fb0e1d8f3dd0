"""Describes the machine that the benchmarks run on.

python -m benchmarks.machine     # prints the description and the peak performance as JSON
"""

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import jax
import psutil

from benchmarks.timing import Peak, measure_peak

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "dm-pix", "onnxruntime")


def describe() -> dict[str, str]:
    """Returns processor, memory, accelerator and versions by name."""
    device = jax.devices()[0]
    found = {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "accelerator": "none" if device.platform == "cpu" else device.device_kind,
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def types() -> tuple[str, ...]:
    """Returns the types that are worth measuring: bfloat16 only on an accelerator."""
    return ("float32",) if jax.default_backend() == "cpu" else ("float32", "bfloat16")


def measure_peaks(dtypes: Sequence[str]) -> dict[str, Peak]:
    """Returns the peak performance for each type, measured now."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    return {dtype: measure_peak(dtype, 5, side) for dtype in dtypes}


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def main() -> None:
    """Prints the description and the peaks as JSON."""
    peaks = {dtype: peak._asdict() for dtype, peak in measure_peaks(types()).items()}
    print(json.dumps({"machine": describe(), "peaks": peaks}))


if __name__ == "__main__":
    main()
