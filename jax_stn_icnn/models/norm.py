"""The one BatchNorm of all networks, with the original's constants; also for folded pictures."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jax_stn_icnn.ops.space_to_depth import Folded, blank, to_blocks

MOMENTUM, EPSILON = 0.9, 1e-5


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
        momentum=MOMENTUM,
        epsilon=EPSILON,
        axis_name=axis_name,
        dtype=dtype,
        name=name,
    )


class BlockBatchNorm(nn.Module):
    """BatchNorm of a folded picture; parameters and statistics are those of `nn.BatchNorm`.

    Attributes:
        train: whether it uses (and records) the statistics of this batch.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation; parameters and statistics stay float32.
    """

    train: bool
    axis_name: str | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Folded) -> Folded:
        """Maps the picture to one of the same size."""
        shape = (x.channels,)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean, var = running_mean.value, running_var.value
        if self.train:
            mean, var = self._statistics(x)
            if not self.is_initializing():
                for running, now in ((running_mean, mean), (running_var, var)):
                    running.value = MOMENTUM * running.value + (1 - MOMENTUM) * now
        factor = scale * lax.rsqrt(var + EPSILON)
        mean, factor, bias = (to_blocks(each, x.block) for each in (mean, factor, bias))
        return blank(x.of(((x.blocks - mean) * factor + bias).astype(self.dtype)))

    def _statistics(self, x: Folded) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of each channel over the pixels of the picture."""
        pixels = x.blocks.astype(jnp.promote_types(x.blocks.dtype, jnp.float32))
        # What fills up the last blocks is zero, and adds nothing.
        sums = jnp.stack([jnp.sum(each, axis=(0, 1, 2)) for each in (pixels, pixels**2)])
        count = pixels.shape[0] * x.size[0] * x.size[1]
        means = jnp.sum(sums.reshape(2, x.channels, -1), axis=2) / count
        if self.axis_name is not None and not self.is_initializing():
            means = lax.pmean(means, self.axis_name)
        return means[0], jnp.maximum(means[1] - means[0] ** 2, 0)
