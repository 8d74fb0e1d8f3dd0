"""Random keys: one for each example of a batch, and from it one for each use.

What an example's key draws depends neither on its neighbours nor on the number of devices.
"""

import jax

from jax_stn_icnn.checks import check_shape

# Numbers to fold into an example's key, one for each use; `augment.augment` splits the key itself.
# They exceed the number of keys of any split: by JAX's default, folding in 2 gives the third key of
# a split.
JITTER, MIRROR, PHOTOMETRIC, WIDEN, UNLABELLED = range(1000, 1005)
# Number to fold into a photometric operation's key, for noise or the content of an occlusion.
CONTENT = 1005


def example_keys(seed: int | jax.Array, step: jax.Array, positions: jax.Array) -> jax.Array:
    """Returns a key for each example of a global batch.

    Args:
        seed: Seed of the run.
        step: Number of the batch.
        positions: Each example's position in the global batch, integers (batch,).

    Returns:
        Keys (batch,), the same for any number of devices and processes.
    """
    check_shape("positions", positions, ("batch",))
    step_key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(step_key, positions)
