"""Variables prepared for parsing on a TPU: what depends on them alone is computed once."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from jax_stn_icnn.models.layers import BLOCK_KERNELS, fold_norms
from jax_stn_icnn.models.pipeline import STNiCNN, call_every_network


@partial(jax.jit, static_argnames="model")
def prepare(model: STNiCNN, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns variables with which the model parses faster on a TPU.

    Norms are folded into convolutions, whose kernels have the networks' type and are spread over
    blocks (`ops.space_to_depth`): for few faces that takes longer than the convolutions.

    Args:
        model: The model.
        variables: Its variables.
    """

    def narrow(leaf: jax.Array) -> jax.Array:
        return leaf.astype(model.config.dtype) if leaf.ndim == 4 else leaf

    folded = jax.tree.map(narrow, fold_norms(variables))
    _, kernels = model.apply(folded, method=call_every_network, mutable=[BLOCK_KERNELS])
    return folded | dict(kernels)
