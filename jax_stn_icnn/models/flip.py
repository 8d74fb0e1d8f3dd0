"""Flip testing: the coarse network sees a picture and its mirror image, and says the mean of both.

Ours, not the paper's; common where people's parts are told apart. The two answers err in different
places, so that their mean errs less (docs/results.md, "Flip testing").
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.anatomy import Anatomy
from jax_stn_icnn.models.unet import CoarseLogits


def with_mirror_images(images: jax.Array) -> jax.Array:
    """Each picture followed by its mirror image: (batch, ..) -> (2 * batch, ..).

    Not all pictures and then all mirror images: of a batch that is spread over devices, those would
    not lie where they are needed.
    """
    both = jnp.stack([images, images[:, :, ::-1]], axis=1)
    return both.reshape(-1, *images.shape[1:])


def averaged(logits: CoarseLogits, anatomy: Anatomy) -> CoarseLogits:
    """The mean of each picture's logits and its mirror image's, mirrored back.

    Args:
        logits: of what `with_mirror_images` returns.
        anatomy: whose classes they are; sides exchange theirs.

    Returns:
        Half as many; a bridge's features, which have no sides to exchange, are the picture's own.
    """
    pairs = jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:]), logits)
    own, other = (jax.tree.map(lambda x, i=i: x[:, i], pairs) for i in (0, 1))
    exchanged = np.eye(anatomy.num_classes, dtype=np.float32)[list(anatomy.mirrored)]
    # A product, since the classes of a pixel lie side by side: one by one they would be slow.
    back = jnp.einsum("bhwc,dc->bhwd", other.all[:, :, ::-1], exchanged, precision="highest")
    whole, edges = own.whole, own.edges
    if whole is not None:
        planes = [anatomy.windowless.index(anatomy.mirrored[i]) for i in anatomy.windowless]
        whole = (whole + jnp.stack([other.whole[:, i] for i in planes], axis=1)[..., ::-1]) / 2
    if edges is not None:
        edges = (edges + other.edges[:, :, ::-1]) / 2
    return CoarseLogits((own.all + back) / 2, whole, edges, own.features)
