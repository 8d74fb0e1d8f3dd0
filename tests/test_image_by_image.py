"""Inference image by image equals that by whole batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_stn_icnn.models.image_by_image import map_images
from jax_stn_icnn.ops.platform import use_platform


def images(batch):
    return np.random.default_rng(batch).random((batch, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("platform", "batch", "expected"),
    [("cpu", 1, 1), ("cpu", 2, 1), ("cpu", 5, 1), ("gpu", 8, 8), ("tpu", 3, 3)],
)
def test_all_images_are_computed(platform, batch, expected):
    sizes = []

    def function(x, others):
        sizes.append(x.shape[0])
        assert others["nothing"] is None
        return {"sum": x.sum(axis=(1, 2)) + others["y"], "both": (x, 2 * x)}

    x, y = images(batch), np.arange(batch, dtype=np.float32)
    others = {"y": y, "nothing": None}
    with use_platform(platform):
        found = jax.jit(lambda *args: map_images(function, *args))(x, others)
    assert set(sizes) == {expected}
    jax.tree.map(np.testing.assert_array_equal, found["both"], (x, 2 * x))
    np.testing.assert_allclose(found["sum"], x.sum(axis=(1, 2)) + y, rtol=1e-6)


def test_a_batch_of_any_size_is_exported():
    (batch,) = jax.export.symbolic_shape("batch")
    with use_platform("cpu"):
        exported = jax.export.export(jax.jit(lambda x: map_images(jnp.sin, x)))(
            jax.ShapeDtypeStruct((batch, 3, 4), jnp.float32)
        )
    np.testing.assert_allclose(exported.call(images(6)), np.sin(images(6)), rtol=1e-6)
