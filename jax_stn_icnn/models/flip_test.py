"""Flip testing: what has no window is scored in a picture and in its mirror image.

Ours, not the paper's; common where people's parts are told apart. The two answers err in different
places, so that their mean errs less. The rough mask stays the picture's own: windows found in the
mean are no better (docs/results.md, "Flip testing").
"""

import jax
import jax.numpy as jnp

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.models.unet import CoarseOutput


def with_mirror_images(images: jax.Array) -> jax.Array:
    """Each picture followed by its mirror image: (batch, ..) -> (2 * batch, ..).

    Not all pictures and then all mirror images: of a batch that is spread over devices, those would
    not lie where they are needed.
    """
    both = jnp.stack([images, images[:, :, ::-1]], axis=1)
    return both.reshape(-1, *images.shape[1:])


def averaged(logits: CoarseOutput, anatomy: Anatomy) -> CoarseOutput:
    """The pictures' own logits, those of what has no window averaged with the mirror images'.

    Args:
        logits: of what `with_mirror_images` returns.
        anatomy: whose classes they are; sides exchange theirs.

    Returns:
        Half as many.
    """
    pairs = jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:]), logits)
    own, other = (jax.tree.map(lambda x, i=i: x[:, i], pairs) for i in (0, 1))
    planes = [anatomy.global_ids.index(anatomy.mirror_ids[i]) for i in anatomy.global_ids]
    back = jnp.stack([other.whole[:, i] for i in planes], axis=1)[..., ::-1]
    return own._replace(whole=(own.whole + back) / 2)
