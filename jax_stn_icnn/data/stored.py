"""Arrays stored in JSON files beside a prepared data set, so that they are computed once.

This module does not import JAX; see `loader`.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jax_stn_icnn.atomic import write_text

LOG = logging.getLogger(__name__)
_SAMPLES = 64


def load_or_compute(
    path: Path | None, shape: tuple[int, ...], compute: Callable[[], np.ndarray], again: str
) -> np.ndarray:
    """Returns a stored array, or computes and stores it if there is no valid file.

    Args:
        path: The file; None for no file.
        shape: Shape of the array, whose numbers are finite.
        compute: Computes the array.
        again: What an unusable file costs, for warnings, such as "labels are counted again".

    Returns:
        The array; float64 if it was stored.
    """
    array = None if path is None else _load(path, shape, again)
    if array is None:
        array = compute()
        if path is not None:
            _save(path, array, again)
    return array


def digest(key: Any) -> str:
    """Returns 16 hexadecimal digits that depend on a value of JSON, for a file's name."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def sample_indices(count: int) -> list[int]:
    """Returns the indices of some records that stand for all in a digest.

    Reading all records would delay each start, and a prepared data set does not change.
    """
    indices = np.linspace(0, count - 1, min(count, _SAMPLES)).round().astype(int)
    return [int(index) for index in indices]


def _load(path: Path, shape: tuple[int, ...], again: str) -> np.ndarray | None:
    """Returns a stored array, or None if there is no valid file."""
    try:
        array = np.array(json.loads(path.read_text(encoding="utf-8")), np.float64)
        if array.shape != shape or not np.all(np.isfinite(array)):
            raise ValueError(f"it must contain finite numbers of shape {shape}")
    except FileNotFoundError:
        return None
    except (OSError, TypeError, ValueError) as error:
        LOG.warning("%s cannot be read (%s); %s", path, error, again)
        return None
    return array


def _save(path: Path, array: np.ndarray, again: str) -> None:
    """Writes an array atomically, whichever other process writes the same.

    A directory that cannot be written to costs only time, so that is only a warning.
    """
    try:
        write_text(path, json.dumps(array.tolist()))
    except OSError as error:
        LOG.warning("%s cannot be written (%s); at the next start %s", path, error, again)
