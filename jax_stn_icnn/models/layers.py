"""Layers of all networks: convolution and BatchNorm, on channels-first arrays or BlockFeatures."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jax import lax

from jax_stn_icnn.ops import space_to_depth
from jax_stn_icnn.ops.convolution import convolve, convolve_upsampled
from jax_stn_icnn.ops.platform import current_implementations
from jax_stn_icnn.ops.space_to_depth import BlockFeatures, Features, repeat_channels, zero_padding

# Those of the original code. Its momentum of 0.1 weights the new value, Flax's the old one.
MOMENTUM, EPSILON = 0.9, 1e-5

# Collection of the kernels that were spread over blocks; see `models.prepared`.
BLOCK_KERNELS = "block_kernels"

Activation = Callable[[jax.Array], jax.Array]


class ExistingParameters:
    """A mixin of Flax modules that reads existing parameters as they are.

    Flax traces the initializer of each one to compare shapes: a third of the time of tracing a
    parse. Whoever loads variables has compared them (`io.weights.check_entries`).
    """

    def param(self: Any, name: str, init_fn: Any, *init_args: Any, **options: Any) -> Any:
        """Returns a parameter, which is initialized if it does not exist."""
        if self.has_variable("params", name):
            return self.get_variable("params", name)
        return super().param(name, init_fn, *init_args, **options)  # type: ignore[misc]


class BatchNorm(ExistingParameters, nn.BatchNorm):
    """`nn.BatchNorm`, traced faster."""


class Conv(ExistingParameters, nn.Module):
    """Convolution of stride 1 that preserves the size; its parameters are those of `nn.Conv`.

    Attributes:
        features: Number of output channels.
        kernel_size: Side of the square kernel, odd.
        dtype: Type of the computation; parameters are float32.
        use_bias: Whether it adds a bias.
    """

    features: int
    kernel_size: int
    dtype: jnp.dtype = jnp.float32
    use_bias: bool = True

    @nn.compact
    def weights(self, channels: int) -> tuple[jax.Array, jax.Array | None]:
        """Returns the kernel (k, k, channels, features), and the bias (features,) if there is one.

        Args:
            channels: Number of input channels.
        """
        shape = self.kernel_size, self.kernel_size, channels, self.features
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return kernel, bias

    def __call__(self, x: Features, below: Features | None = None) -> Features:
        """Returns the convolution of `x` concatenated with `below` upsampled by two.

        Args:
            x: (batch, channels, height, width), or blocks.
            below: (batch, more channels, ceil(height / 2), ceil(width / 2)), if any, in the layout
                of `x`.

        Returns:
            (batch, features, height, width), or blocks.
        """
        if below is not None and current_implementations().compiles_quickly:
            x, below = jnp.concatenate([x, _upsample(below, x.shape[2:])], axis=1), None
        channels = num_channels(x) + (0 if below is None else num_channels(below))
        kernel, bias = self.weights(channels)
        if isinstance(x, BlockFeatures):
            return self._convolve_blocks(x, below, kernel, bias)
        own, of_below = jnp.split(kernel, [x.shape[1]], axis=2)
        out = convolve(x.astype(self.dtype), own.astype(self.dtype))
        if below is not None:
            out += convolve_upsampled(below.astype(self.dtype), of_below, tuple(x.shape[2:]))
        if bias is None:
            return out
        # Added in float32: the bias's gradient is a sum over all pixels, which in bfloat16 stops
        # growing at some hundred times the size of its terms.
        return (out + bias[:, None, None]).astype(self.dtype)

    def _convolve_blocks(
        self, x: BlockFeatures, below: BlockFeatures | None, kernel: jax.Array, bias
    ) -> BlockFeatures:
        out = space_to_depth.convolve(x, kernel, below, self._keep)
        if bias is not None:
            out = out.of((out.blocks + repeat_channels(bias, out.block)).astype(self.dtype))
        return zero_padding(out)

    def _keep(self, make: Callable[[], jax.Array]) -> jax.Array:
        """Returns the block kernel: a variable if the variables were prepared for parsing."""
        if self.has_variable(BLOCK_KERNELS, "kernel"):
            return self.get_variable(BLOCK_KERNELS, "kernel")
        made = make()
        if self.is_mutable_collection(BLOCK_KERNELS) and not self.is_initializing():
            self.put_variable(BLOCK_KERNELS, "kernel", made)
        return made


def _upsample(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Returns (batch, channels, *size): each pixel twice along both axes."""
    return x.repeat(2, axis=2).repeat(2, axis=3)[:, :, : size[0], : size[1]]


def num_channels(x: Features) -> int:
    """Returns the number of channels of channels-first images or of blocks."""
    return x.channels if isinstance(x, BlockFeatures) else x.shape[1]


class ConvNorm(nn.Module):
    """Convolution, BatchNorm and activation; preserves the size.

    Attributes:
        features: Number of output channels.
        activation: Activation; it maps zero to zero.
        kernel_size: Side of the square kernel, odd.
        axis_name: Name of a mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
    """

    features: int
    activation: Activation
    kernel_size: int = 5
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Features, train: bool, below: Features | None = None) -> Features:
        """Maps (batch, channels, height, width) to (batch, features, height, width), or blocks.

        Args:
            x: The features.
            train: Whether BatchNorm uses, and records, the statistics of this batch.
            below: Features of the row below, if any, (batch, more channels, ceil(height / 2),
                ceil(width / 2)); they are upsampled by two and concatenated to `x`.

        Returns:
            The features, in the layout of `x`.
        """
        is_folded = not (self.is_initializing() or self.has_variable("params", "norm"))
        x = Conv(self.features, self.kernel_size, self.dtype, name="conv")(x, below)
        if not is_folded:
            x = normalize(x, train, self.axis_name, self.dtype, "norm")
        return activate(x, self.activation)


def activate(x: Features, activation: Activation) -> Features:
    """Returns features with an activation that maps zero to zero."""
    return x.of(activation(x.blocks)) if isinstance(x, BlockFeatures) else activation(x)


def fold_norms(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns variables for inference, each BatchNorm of a `ConvNorm` folded into its convolution.

    The program of the networks then has a tenth fewer operations.

    Args:
        variables: `{"params": ..., "batch_stats": ...}` of any module, arrays of NumPy or JAX.
    """
    params = traverse_util.flatten_dict(dict(variables["params"]))
    statistics = traverse_util.flatten_dict(dict(variables.get("batch_stats", {})))
    for *path, conv, name in list(params):
        norm = (*path, "norm")
        if (conv, name) != ("conv", "kernel") or (*norm, "mean") not in statistics:
            continue
        mean, var = (statistics.pop((*norm, key)) for key in ("mean", "var"))
        factor = params.pop((*norm, "scale")) / (var + EPSILON) ** 0.5
        kernel, bias = (*path, "conv", "kernel"), (*path, "conv", "bias")
        params[kernel] = params[kernel] * factor
        params[bias] = (params[bias] - mean) * factor + params.pop((*norm, "bias"))
    return {
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(statistics),
    }


def batch_norm(
    train: bool,
    axis_name: str | None,
    dtype: jnp.dtype,
    name: str | None = None,
    axis: int = -1,
    epsilon: float = EPSILON,
) -> nn.BatchNorm:
    """Returns a BatchNorm with the original's constants; for use within a compact module.

    Args:
        train: Whether it uses, and records, the statistics of this batch.
        axis_name: Name of a mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
        name: The module's name.
        axis: The axis of the channels.
        epsilon: Added to the variance.
    """
    return BatchNorm(
        use_running_average=not train,
        axis=axis,
        momentum=MOMENTUM,
        epsilon=epsilon,
        axis_name=axis_name,
        dtype=dtype,
        name=name,
    )


def normalize(
    x: Features,
    train: bool,
    axis_name: str | None,
    dtype: jnp.dtype,
    name: str,
    epsilon: float = EPSILON,
) -> Features:
    """Returns features after BatchNorm; for use within a compact module.

    Args:
        x: (batch, channels, height, width), or blocks.
        train: As for `batch_norm`.
        axis_name: As for `batch_norm`.
        dtype: As for `batch_norm`.
        name: The module's name.
        epsilon: Added to the variance.
    """
    if isinstance(x, BlockFeatures):
        return BlockBatchNorm(train, axis_name, dtype, epsilon, name=name)(x)
    return batch_norm(train, axis_name, dtype, name, 1, epsilon)(x)


class BlockBatchNorm(ExistingParameters, nn.Module):
    """BatchNorm of BlockFeatures; parameters and statistics are those of `nn.BatchNorm`.

    Attributes:
        train: Whether it uses, and records, the statistics of this batch.
        axis_name: Name of a mapped axis over which batch statistics are averaged.
        dtype: Type of the computation; parameters and statistics are float32.
        epsilon: Added to the variance.
    """

    train: bool
    axis_name: str | None
    dtype: jnp.dtype
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: BlockFeatures) -> BlockFeatures:
        """Maps features to features of the same shape."""
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
        factor = scale * lax.rsqrt(var + self.epsilon)
        mean, factor, bias = (repeat_channels(each, x.block) for each in (mean, factor, bias))
        return zero_padding(x.of(((x.blocks - mean) * factor + bias).astype(self.dtype)))

    def _statistics(self, x: BlockFeatures) -> tuple[jax.Array, jax.Array]:
        """Returns mean and variance of each channel over the pixels of the images."""
        pixels = x.blocks.astype(jnp.promote_types(x.blocks.dtype, jnp.float32))
        # The pixels that pad the blocks are zero and add nothing.
        sums = jnp.stack([jnp.sum(each, axis=(0, 1, 2)) for each in (pixels, pixels**2)])
        count = pixels.shape[0] * x.size[0] * x.size[1]
        means = jnp.sum(sums.reshape(2, x.channels, -1), axis=2) / count
        if self.axis_name is not None and not self.is_initializing():
            means = lax.pmean(means, self.axis_name)
        return means[0], jnp.maximum(means[1] - means[0] ** 2, 0)
