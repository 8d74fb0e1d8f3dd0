"""Describes the machine that the benchmarks run on."""

import importlib.metadata
import os
import platform
from pathlib import Path

import jax
import psutil

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


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
