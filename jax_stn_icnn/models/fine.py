"""The fine networks: an interlinked CNN for each kind of part, which segments the patches.

Section 2.1 of the paper: four networks for six parts.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.anatomy import Anatomy, Part
from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.models.bridge import Bridge, BridgeOutput, Context, bridge_row
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.outlining import outlined


class FineNetworks(nn.Module):
    """The fine networks; brow 2 and eye 2 pass mirrored through those of brow 1 and eye 1.

    Attributes:
        config: Options of the model.
        axis_name: Name of a mapped axis over which batch statistics are averaged.
    """

    config: ModelConfig = ModelConfig()
    axis_name: str | None = None

    @property
    def dtype(self) -> jnp.dtype:
        """Type of the computation; parameters, statistics and logits are float32."""
        return jnp.dtype(self.config.dtype)

    @nn.compact
    def __call__(
        self,
        patches: Sequence[jax.Array],
        train: bool,
        contexts: Sequence[Context] | None = None,
    ) -> tuple[jax.Array, ...]:
        """Returns the logits of the patches.

        Args:
            patches: For each part, floats in 0..1, (batch, height, width, 3).
            train: Whether BatchNorm uses, and records, the statistics of this batch.
            contexts: The context of each part's patch, if there is a bridge.

        Returns:
            For each part its logits, (batch, height, width, labels of the part).

        Raises:
            ValueError: Shapes do not match, or contexts are given without a bridge or missing.
        """
        config = self.config
        anatomy, parts = config.anatomy, config.anatomy.parts
        if config.bridge != (contexts is not None):
            state = "missing" if config.bridge else "given"
            raise ValueError(f"bridge is {config.bridge}, but contexts are {state}")
        if len(patches) != len(parts):
            raise ValueError(f"patches must hold {len(parts)} parts, not {len(patches)}")
        for part, patch in zip(parts, patches, strict=True):
            check_shape(f"patches of {part.name}", patch, ("batch", "height", "width", 3))
        logits: dict[str, jax.Array] = {}
        for network, num_labels in anatomy.networks.items():
            members = [(i, part) for i, part in enumerate(parts) if part.network == network]
            # Both sides in one batch, so that they share BatchNorm's statistics.
            batch = _interleave([_mirror(patches[i], part) for i, part in members])
            bridge_output = None
            if contexts is not None:
                own = [_mirror_context(contexts[i], part, anatomy) for i, part in members]
                context = jax.tree.map(lambda *sides: _interleave(sides), *own)
                channels = config.fine_channels[bridge_row(len(config.fine_channels))]
                bridge = Bridge(channels, self.dtype, name=f"bridge_{network}")
                bridge_output = bridge(context)
            icnn = ICNN(
                num_labels,
                config.fine_channels,
                config.interlinks,
                self.axis_name,
                self.dtype,
                name=network,
            )
            run = partial(_run, train=train)
            out = outlined(run, icnn, batch, bridge_output, train=train)
            out = out.reshape(-1, len(members), *out.shape[1:])
            for side, (_, part) in enumerate(members):
                logits[part.name] = _mirror(out[:, side], part)
        return tuple(logits[part.name] for part in parts)


def _run(
    icnn: ICNN, patches: jax.Array, bridge_output: BridgeOutput | None, train: bool
) -> jax.Array:
    return icnn(patches, train, bridge_output)


def _interleave(sides: Sequence[jax.Array]) -> jax.Array:
    """Returns the sides of each face one after the other, in one batch.

    Not one side of all faces first: a batch sharded over devices would have to be exchanged.
    """
    return jnp.stack(sides, axis=1).reshape(-1, *sides[0].shape[1:])


def _mirror(x: jax.Array, part: Part) -> jax.Array:
    return x[:, :, ::-1] if part.mirrored else x


def _mirror_context(context: Context, part: Part, anatomy: Anatomy) -> Context:
    """Returns the context of a patch as its network sees it, the scores of the sides swapped."""
    if not part.mirrored:
        return context
    channels = [*anatomy.mirror_ids, *range(anatomy.num_classes, context.face.shape[1])]
    window, face = (jnp.stack([x[:, i] for i in channels], axis=1) for x in context)
    return Context(window[..., ::-1], face)
