"""Flip testing: global classes are predicted for an image and for its mirror image.

Ours, not the paper's; common in human parsing. The two predictions have different errors, which
the mean reduces. The coarse segmentation stays that of the image, since windows predicted from the
mean are no better.
"""

import jax
import jax.numpy as jnp

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.models.coarse import CoarseOutput


def with_mirror_images(images: jax.Array) -> jax.Array:
    """Returns each image followed by its mirror image: (batch, ..) -> (2 * batch, ..).

    Not all images first: a batch sharded over devices would have to be exchanged.
    """
    both = jnp.stack([images, images[:, :, ::-1]], axis=1)
    return both.reshape(-1, *images.shape[1:])


def average_global_logits(output: CoarseOutput, anatomy: Anatomy) -> CoarseOutput:
    """Returns the images' output, the global logits averaged with those of the mirror images.

    Args:
        output: Output for the images that `with_mirror_images` returns.
        anatomy: The classes; the sides are swapped back.

    Returns:
        The output for half as many images.
    """
    pairs = jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:]), output)
    own, other = (jax.tree.map(lambda x, i=i: x[:, i], pairs) for i in (0, 1))
    planes = [anatomy.global_ids.index(anatomy.mirror_ids[i]) for i in anatomy.global_ids]
    mirrored = jnp.stack([other.global_logits[:, i] for i in planes], axis=1)[..., ::-1]
    return own._replace(global_logits=(own.global_logits + mirrored) / 2)
