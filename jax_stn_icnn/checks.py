"""Shape checks at public entry: a user's mistake becomes a ValueError that names the argument."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ANY_LEADING = ...


def check_shape(name: str, array: Any, shape: Sequence[Any]) -> None:
    """Checks the shape of an argument.

    Args:
        name: The argument's name, for the message.
        array: Anything with a `shape`.
        shape: For each axis its size, or a word for any size ("batch"); axes of the same word must
            have the same size. A leading `...` allows any number of axes in front.

    Raises:
        ValueError: The shape differs; the message gives both.
    """
    wanted, actual = tuple(shape), tuple(jnp.shape(array))
    tail = actual
    if wanted and wanted[0] is ANY_LEADING:
        wanted = wanted[1:]
        tail = actual[max(len(actual) - len(wanted), 0) :]
    sizes: dict[str, int] = {}
    fits = len(tail) == len(wanted) and all(
        size == (sizes.setdefault(want, size) if isinstance(want, str) else want)
        for want, size in zip(wanted, tail, strict=True)
    )
    if not fits:
        text = ", ".join("..." if want is ANY_LEADING else str(want) for want in shape)
        raise ValueError(f"{name} has shape {actual}, but must have shape ({text})")


def check_same_batch(**arrays: Any) -> None:
    """Checks that all arguments have the same first axis.

    Args:
        **arrays: The arguments by name.

    Raises:
        ValueError: Two of them differ; the message lists all shapes.
    """
    if len({jnp.shape(array)[0] for array in arrays.values()}) > 1:
        text = ", ".join(f"{name} {tuple(jnp.shape(array))}" for name, array in arrays.items())
        raise ValueError(f"these must agree in their first axis, the batch: {text}")


def check_labels(name: str, label_map: Any, num_labels: int) -> None:
    """Checks that labels are integers in 0..num_labels - 1.

    While a function is traced the values are unknown, and only the type is checked.

    Args:
        name: The argument's name, for the message.
        label_map: An array of any shape.
        num_labels: Number of labels.

    Raises:
        ValueError: The type is not an integer, or a value lies outside.
    """
    if not jnp.issubdtype(label_map.dtype, jnp.integer):
        raise ValueError(f"{name} must hold integers, not {label_map.dtype}")
    if isinstance(label_map, jax.core.Tracer) or label_map.size == 0:
        return
    values = np.asarray(label_map)  # NumPy may read it while a function is traced
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest >= num_labels:
        raise ValueError(
            f"{name} holds labels {lowest}..{highest}, but they must lie in 0..{num_labels - 1}"
        )


def check_logits(logits: Any, label_map: Any) -> None:
    """Checks that logits and labels have the same pixels.

    Args:
        logits: (batch, height, width, labels).
        label_map: Integers below `labels`, (batch, height, width).

    Raises:
        ValueError: Shapes do not match, or a label is outside 0..labels - 1.
    """
    check_shape("logits", logits, ("batch", "height", "width", "labels"))
    check_shape("label_map", label_map, logits.shape[:3])
    check_labels("label_map", label_map, logits.shape[-1])
