"""The fine networks: one for each kind of part, which parse what the windows cut.

Section 2.1 of the paper: four interlinked CNNs for six parts.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from jax_stn_icnn.anatomy import NINE, Anatomy, Part
from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.models.bridge import Bridge, BridgeOutput, Context, row_of
from jax_stn_icnn.models.icnn import CHANNELS, ICNN, INTERLINKS
from jax_stn_icnn.models.outlining import outlined

Patches = jax.Array | tuple[jax.Array, ...]


class FineNetworks(nn.Module):
    """The fine networks; brow 2 and eye 2 go mirrored through those of brow 1 and eye 1.

    Attributes:
        anatomy: whose parts they parse.
        channels: of each network's rows; the paper's four by default.
        interlinks: how often the rows exchange their features.
        bridge: whether each sees the context of its patches.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation; parameters, statistics and logits stay float32.
        platform: as of `STNiCNN`.
    """

    anatomy: Anatomy = NINE
    channels: tuple[int, ...] = CHANNELS
    interlinks: int = INTERLINKS
    bridge: bool = False
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    platform: str | None = None

    @nn.compact
    def __call__(
        self, patches: Patches, train: bool, contexts: tuple[Context, ...] | None = None
    ) -> tuple[jax.Array, ...]:
        """Parses the patches.

        Args:
            patches: floats in 0..1, (batch, parts, height, width, 3), or for each part (batch,
                height, width, 3).
            train: whether BatchNorm uses (and records) the statistics of this batch.
            contexts: of each part's patch, if there is a bridge.

        Returns:
            For each part its logits, (batch, height, width, labels of the part).

        Raises:
            ValueError: shapes do not fit, or there are contexts without a bridge, or none with one.
        """
        parts = self.anatomy.parts
        if self.bridge != (contexts is not None):
            raise ValueError(
                f"bridge is {self.bridge}, but contexts are {'missing' if self.bridge else 'given'}"
            )
        if not isinstance(patches, tuple):
            check_shape("patches", patches, ("batch", len(parts), "height", "width", 3))
            patches = tuple(patches[:, i] for i in range(len(parts)))
        logits: dict[str, jax.Array] = {}
        for network, num_labels in self.anatomy.networks.items():
            own = [(i, part) for i, part in enumerate(parts) if part.network == network]
            # Both sides in one batch, so that BatchNorm sees them together.
            batch = _together([_mirror(patches[i], part) for i, part in own])
            bridge_output = None
            if contexts is not None:
                found = [_mirrored_context(contexts[i], part, self.anatomy) for i, part in own]
                context = jax.tree.map(lambda *each: _together(each), *found)
                channels = self.channels[row_of(len(self.channels))]
                bridge_output = Bridge(channels, self.dtype, name=f"bridge_{network}")(context)
            icnn = ICNN(
                num_labels,
                self.channels,
                self.interlinks,
                self.axis_name,
                self.dtype,
                self.platform,
                name=network,
            )
            run = partial(_run, train=train)
            out = outlined(run, icnn, batch, bridge_output, train=train)
            out = out.reshape(-1, len(own), *out.shape[1:])
            for place, (_, part) in enumerate(own):
                logits[part.name] = _mirror(out[:, place], part)
        return tuple(logits[part.name] for part in parts)


def _run(
    icnn: ICNN, patches: jax.Array, bridge_output: BridgeOutput | None, train: bool
) -> jax.Array:
    return icnn(patches, train, bridge_output)


def _together(sides: Sequence[jax.Array]) -> jax.Array:
    """The sides of each face one after the other, in one batch.

    Not one side of all faces after the other: of a batch that is spread over devices, those would
    not lie where they are needed.
    """
    return jnp.stack(sides, axis=1).reshape(-1, *sides[0].shape[1:])


def _mirror(x: jax.Array, part: Part) -> jax.Array:
    return x[:, :, ::-1] if part.mirrored else x


def _mirrored_context(context: Context, part: Part, anatomy: Anatomy) -> Context:
    """The context of a patch as its network is to see it: sides exchange their scores, too."""
    if not part.mirrored:
        return context
    channels = [*anatomy.mirror_ids, *range(anatomy.num_classes, context.face.shape[1])]
    window, face = (jnp.stack([x[:, i] for i in channels], axis=1) for x in context)
    return Context(window[..., ::-1], face)
