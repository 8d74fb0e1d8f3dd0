"""The device and the process that a parser runs in."""

import functools
import os
import re

import jax


def find_device(device: jax.Device | str) -> jax.Device:
    """Returns a device of this process.

    Args:
        device: the device, which is returned; or the name of a platform, `"cpu"`, `"gpu"` or
            `"tpu"`, which stands for its first device, or with a number, as in `"gpu:1"`, for
            another one.

    Raises:
        ValueError: this process has no such device.
    """
    if isinstance(device, jax.Device):
        return device
    name = re.fullmatch(r"([a-z]+)(?::(\d+))?", str(device))
    try:
        if name is not None:
            return jax.local_devices(backend=name[1])[int(name[2] or 0)]
    except (RuntimeError, IndexError):  # There is no such platform, or no such number.
        pass
    devices = ", ".join(map(name_of, jax.local_devices()))
    raise ValueError(
        f"device is {device!r}, but must be a jax.Device or the name of one; JAX has {devices}"
    )


def name_of(device: jax.Device) -> str:
    """Returns the name of a device of this process, as `find_device` takes it."""
    number = jax.local_devices(backend=device.platform).index(device)
    return f"{device.platform}:{number}"


def check_process() -> None:
    """Checks that this process was not forked from one that has created a parser.

    Raises:
        RuntimeError: it was; JAX would wait forever for threads that do not exist here.
    """
    if _first_process() != os.getpid():
        raise RuntimeError(
            "this process was forked after a FaceParser had been created, and JAX cannot be used "
            "in it: create the parser after the fork, in each process (gunicorn: without "
            '--preload), or start processes by multiprocessing.get_context("spawn")'
        )


@functools.cache
def _first_process() -> int:
    """Returns the id of the process of the first parser; forked processes inherit it."""
    return os.getpid()
