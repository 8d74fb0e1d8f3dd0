"""The implementations that operations use on each platform, chosen while a program is traced.

Several operations have more than one implementation, and all of them return the same values: CPUs
and GPUs gather pixels, where a TPU multiplies matrices; a CPU convolves by matrix products, where
accelerators use XLA's convolution; CPUs and TPUs convolve depthwise by sums of shifted products; a
TPU computes on space-to-depth features. The choice depends on the platform alone and is made here,
before tracing, so that a program contains one implementation.
"""

import contextlib
from typing import NamedTuple

import jax


class Implementations(NamedTuple):
    """The implementations of a platform.

    Attributes:
        sampling: `gather` or `matmul`; axis-aligned windows only, others are always gathered.
        convolution: `matmul` or `xla`.
        depthwise: `shifts` or `xla`.
        space_to_depth: Whether networks compute on space-to-depth features, and products move
            pixels and classes, as on a TPU, which copies slowly.
        compiles_quickly: Whether networks consist of few operations, which are compiled fast, but
            compute more.
        image_by_image: Whether inference computes one image of a batch after the other.
        outlined_losses: Whether a training step computes each fine network's loss, with its
            gradient, as a function of its own; see `models.outlining`.
    """

    sampling: str
    convolution: str
    depthwise: str
    space_to_depth: bool
    compiles_quickly: bool = False
    image_by_image: bool = False
    outlined_losses: bool = False


IMPLEMENTATIONS = {
    "cpu": Implementations(
        "gather", "matmul", "shifts", False, image_by_image=True, outlined_losses=True
    ),
    "gpu": Implementations("gather", "xla", "xla", False),
    "tpu": Implementations("matmul", "xla", "shifts", True),
    # For programs that run a few times, until those for `cpu` are compiled.
    "cpu_quick": Implementations("gather", "xla", "shifts", False, compiles_quickly=True),
    # ONNX runtimes have neither fast gathers nor cheap loops.
    "onnx": Implementations("matmul", "xla", "xla", False),
}

# Part of the key of JAX's caches: a function traced for one platform is traced again for another.
_platform = jax.make_user_context(None)


def current_implementations() -> Implementations:
    """Returns the implementations that programs are traced with.

    They are those of the platform that `use_platform` names, by default of JAX's default backend.
    """
    platform = _platform.value or jax.default_backend()
    return IMPLEMENTATIONS.get(platform, IMPLEMENTATIONS["gpu"])


def use_platform(platform: str) -> contextlib.AbstractContextManager[None]:
    """Returns a context manager within which programs are traced for a platform.

    For programs that are compiled for devices that are not attached or for other runtimes, and for
    comparing implementations.

    Args:
        platform: A key of IMPLEMENTATIONS.

    Returns:
        The context manager.

    Raises:
        ValueError: The platform is unknown.
    """
    if platform not in IMPLEMENTATIONS:
        known = ", ".join(IMPLEMENTATIONS)
        raise ValueError(f"platform is {platform!r}, but must be one of {known}")
    return _platform(platform)
