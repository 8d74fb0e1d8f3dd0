"""Windows and scores for tests of the sampler."""

import jax
import jax.numpy as jnp

from jax_stn_icnn import geometry
from jax_stn_icnn.anatomy import NINE


def random_theta(key, shape, scale=0.5, shear=0.3, shift=0.3):
    scales, shears, shifts = (jax.random.uniform(k, (*shape, 2)) for k in jax.random.split(key, 3))
    theta = jnp.zeros((*shape, 2, 3))
    theta = theta.at[..., 0, 0].set(scale + 0.2 * scales[..., 0])
    theta = theta.at[..., 1, 1].set(scale + 0.2 * scales[..., 1])
    theta = theta.at[..., 0, 1].set(shear * (shears[..., 0] - 0.5))
    theta = theta.at[..., 1, 0].set(shear * (shears[..., 1] - 0.5))
    return theta.at[..., :, 2].set(shift * (shifts - 0.5))


def whole_pixel_theta(centres_yx, frame, patch):
    return geometry.theta_from_centres(jnp.array(centres_yx), frame, patch)


def part_scores(key, batch, patch):
    keys = jax.random.split(key, NINE.num_parts)
    sizes = [NINE.networks[part.network] for part in NINE.parts]
    return [
        jax.nn.softmax(jax.random.normal(k, (batch, *patch, n)))
        for k, n in zip(keys, sizes, strict=True)
    ]
