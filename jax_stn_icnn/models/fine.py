"""The fine networks: an interlinked CNN for each kind of part, which segments the patches.

Section 2.1 of the paper: four networks for six parts.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.anatomy import Anatomy, Part
from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.models.bridge import Bridge, BridgeOutput, Context, bridge_row
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.outlining import outlined, outlined_loss

# A network's parts by index, and its inputs: their patches, and the bridge's output, if any.
Members: TypeAlias = dict[int, Part]
Inputs: TypeAlias = tuple[jax.Array, BridgeOutput | None]
# The loss of a part, from its index, logits and target.
PartLoss: TypeAlias = Callable[[int, jax.Array, Any], jax.Array]


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
        logits: dict[int, jax.Array] = {}
        for icnn, members, inputs in self._networks(patches, contexts):
            run = partial(_member_logits, members=members, train=train)
            own = outlined(run, icnn, inputs, train=train)
            logits |= dict(zip(members, own, strict=True))
        return tuple(logits[i] for i in range(len(logits)))

    def loss(
        self,
        patches: Sequence[jax.Array],
        part_loss: PartLoss,
        targets: Sequence[Any],
        contexts: Sequence[Context] | None = None,
    ) -> jax.Array:
        """Returns the sum of the parts' losses in training, each network's with its gradient.

        Args:
            patches: As for a call.
            part_loss: Function of a part's index, its logits and its target; returns a scalar.
            targets: For each part a tree of arrays, without a gradient.
            contexts: As for a call.

        Returns:
            A scalar.

        Raises:
            ValueError: As for a call.
        """

        def network_loss(
            icnn: ICNN, inputs: Inputs, targets: Sequence[Any], members: Members
        ) -> jax.Array:
            logits = _member_logits(icnn, inputs, members=members, train=True)
            return sum(map(part_loss, members, logits, targets), jnp.zeros(()))

        total = jnp.zeros(())
        for icnn, members, inputs in self._networks(patches, contexts):
            own = [targets[i] for i in members]
            total += outlined_loss(partial(network_loss, members=members), icnn, inputs, own)
        return total

    @nn.compact
    def _networks(
        self, patches: Sequence[jax.Array], contexts: Sequence[Context] | None
    ) -> list[tuple[ICNN, Members, Inputs]]:
        """Returns each network with its parts and inputs, the sides of a face as one batch."""
        config = self.config
        anatomy, parts = config.anatomy, config.anatomy.parts
        if config.bridge != (contexts is not None):
            state = "missing" if config.bridge else "given"
            raise ValueError(f"bridge is {config.bridge}, but contexts are {state}")
        if len(patches) != len(parts):
            raise ValueError(f"patches must hold {len(parts)} parts, not {len(patches)}")
        for part, patch in zip(parts, patches, strict=True):
            check_shape(f"patches of {part.name}", patch, ("batch", "height", "width", 3))
        networks = []
        for network, num_labels in anatomy.networks.items():
            members = {i: part for i, part in enumerate(parts) if part.network == network}
            # Both sides in one batch, so that they share BatchNorm's statistics.
            batch = _interleave([_mirror(patches[i], part) for i, part in members.items()])
            bridge_output = None
            if contexts is not None:
                own = [_mirror_context(contexts[i], part, anatomy) for i, part in members.items()]
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
            networks.append((icnn, members, (batch, bridge_output)))
        return networks


def _member_logits(
    icnn: ICNN, inputs: Inputs, *, members: Members, train: bool
) -> tuple[jax.Array, ...]:
    """Returns the logits of each part of a network."""
    patches, bridge_output = inputs
    out = icnn(patches, train, bridge_output)
    out = out.reshape(-1, len(members), *out.shape[1:])
    return tuple(_mirror(out[:, side], part) for side, part in enumerate(members.values()))


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
