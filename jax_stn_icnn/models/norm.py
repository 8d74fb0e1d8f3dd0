"""The one BatchNorm of all networks, with the original's constants."""

import jax.numpy as jnp
from flax import linen as nn


def batch_norm(
    train: bool,
    axis_name: str | None,
    dtype: jnp.dtype,
    name: str | None = None,
    axis: int = -1,
) -> nn.BatchNorm:
    """Makes a BatchNorm; for use within a compact module.

    Args:
        train: whether it uses (and records) the statistics of this batch.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation; parameters and statistics stay float32.
        name: the module's name.
        axis: that of the channels.

    Returns:
        The module. Its momentum is PyTorch's 0.1, which counts the other way round.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        axis=axis,
        momentum=0.9,
        epsilon=1e-5,
        axis_name=axis_name,
        dtype=dtype,
        name=name,
    )
