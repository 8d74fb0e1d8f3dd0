"""What is computed of folded pictures, as on TPU, against what is computed of the pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import BROWS, random_variables

from jax_stn_icnn.models import conv, icnn, unet
from jax_stn_icnn.models.bridge import Context, context_size
from jax_stn_icnn.models.fine import FineNetworks
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.localizer import VGG9Localizer
from jax_stn_icnn.models.pipeline import STNiCNN
from jax_stn_icnn.models.unet import UNet
from jax_stn_icnn.ops import space_to_depth

# Of no use without a TPU; CI runs them.
pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


def assert_near(found, expected, rtol, atol):
    def check(path, one, other):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(
            np.asarray(one, np.float64),
            np.asarray(other, np.float64),
            rtol,
            atol,
            err_msg=jax.tree_util.keystr(path),
        )

    jax.tree_util.tree_map_with_path(check, found, expected)


def integers(shape, highest=3):
    """Few different ones, so that many pixels are equal."""
    return jax.random.randint(KEY, shape, -highest, highest + 1).astype(jnp.float32)


@pytest.mark.parametrize("start", [0, -2])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (1, 5)])
def test_fold_gathers_blocks_and_unfold_undoes_it(size, start):
    picture = jax.random.normal(KEY, (2, *size, 3))
    x = space_to_depth.fold(picture, (4, 4), start)
    assert x.channels == 3 and x.size == size
    padded = np.pad(picture, ((0, 0), (-start, 8), (-start, 8), (0, 0)))
    np.testing.assert_array_equal(
        x.blocks[1, 0, 1], padded[1, :4, 4:8].transpose(2, 0, 1).reshape(-1)
    )
    np.testing.assert_array_equal(space_to_depth.unfold(x), picture)


@pytest.mark.parametrize("stride", [1, 2], ids=["blocks half as large", "blocks as large"])
@pytest.mark.parametrize("block", [(4, 4), (2, 2)])
@pytest.mark.parametrize("size", [(16, 8), (15, 9), (6, 13), (1, 2)])
def test_max_pool_and_its_gradient_among_equal_pixels(size, block, stride):
    picture = integers((2, *size, 3))
    result = tuple(side // 2 * stride for side in block)
    half = tuple(-(-length // 2) for length in size)
    gradient = jax.random.normal(jax.random.key(1), (2, *half, 3))

    @jax.jit
    def both(picture):
        def plain(x):
            return icnn.max_pool(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)

        def of_blocks(x):
            pooled = space_to_depth.max_pool(space_to_depth.fold(x, block), result)
            assert pooled.block == result
            return space_to_depth.unfold(pooled)

        return [(f(picture), *jax.vjp(f, picture)[1](gradient)) for f in (of_blocks, plain)]

    found, expected = both(picture)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


CONVOLUTIONS = [  # side of the kernel, block, where the first block of the picture begins
    (1, (4, 4), 0),
    (3, (4, 4), 0),
    (3, (2, 2), -1),
    (5, (4, 4), 0),
    (5, (4, 4), -2),
    (5, (2, 2), 0),
    (5, (1, 1), 0),
    (9, (4, 4), -2),
    (9, (1, 1), 0),
]


@pytest.mark.parametrize("size", [(8, 12), (7, 10)])
@pytest.mark.parametrize(("side", "block", "start"), CONVOLUTIONS)
def test_convolution(side, block, start, size):
    picture = jax.random.normal(KEY, (2, *size, 3))
    kernel = jax.random.normal(jax.random.key(1), (side, side, 3, 4))

    @jax.jit
    def both(picture, kernel):
        out = space_to_depth.convolve(space_to_depth.fold(picture, block, start), kernel)
        expected = conv.convolve(picture.transpose(0, 3, 1, 2), kernel)
        return space_to_depth.unfold(out), expected.transpose(0, 2, 3, 1)

    np.testing.assert_allclose(*both(picture, kernel), atol=5e-5)


def test_blocks_that_a_kernel_spans_are_few():
    """Two by two where the kernel reaches half a block, three by three where it does not."""
    x = space_to_depth.fold(jnp.ones((1, 12, 12, 1)), (4, 4))
    there = space_to_depth.convolve(x, jnp.ones((5, 5, 1, 1)))
    assert there.start == -2 and there.blocks.shape[1:3] == (4, 4)
    back = space_to_depth.convolve(space_to_depth.blank(there), jnp.ones((5, 5, 1, 1)))
    assert back.start == 0 and back.blocks.shape[1:3] == (3, 3)


@pytest.mark.parametrize("size", [(8, 12), (7, 12), (9, 11), (13, 5)])
@pytest.mark.parametrize(
    ("block", "below_block"),
    [((4, 4), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (1, 1)), ((1, 1), (1, 1))],
)
def test_row_below_counts_as_upsampled(block, below_block, size):
    picture = jax.random.normal(KEY, (2, *size, 3))
    below = jax.random.normal(jax.random.key(1), (2, *(-(-n // 2) for n in size), 2))
    kernel = jax.random.normal(jax.random.key(2), (5, 5, 5, 4))

    @jax.jit
    def both():
        out = space_to_depth.convolve(
            space_to_depth.fold(picture, block), kernel, space_to_depth.fold(below, below_block)
        )
        doubled = jnp.repeat(jnp.repeat(below, 2, axis=1), 2, axis=2)
        stacked = jnp.concatenate([picture, doubled[:, : size[0], : size[1]]], axis=3)
        expected = conv.convolve(stacked.transpose(0, 3, 1, 2), kernel)
        return space_to_depth.unfold(out), expected.transpose(0, 2, 3, 1)

    np.testing.assert_allclose(*both(), atol=1e-4)


def both_ways(make, *inputs):
    """All that a network makes of inputs: folded, and not."""
    dtype = jnp.float64 if jax.config.jax_enable_x64 else jnp.float32
    plain, of_blocks = (make(dtype=dtype, platform=platform) for platform in ("cpu", "tpu"))
    variables = random_variables(plain, *inputs)
    jax.tree.map(np.testing.assert_array_equal, random_variables(of_blocks, *inputs), variables)
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def everything(network):
        def loss(params, inputs):
            out, updated = network.apply(
                {"params": params, **rest}, *inputs, True, mutable=["batch_stats"]
            )
            leaves = jax.tree.leaves(out)
            weights = [jax.random.normal(KEY, leaf.shape) for leaf in leaves]
            total = sum(jnp.sum(w * leaf) for w, leaf in zip(weights, leaves, strict=True))
            return total / leaves[0].size ** 0.5, (out, updated)

        gradients, (out, updated) = jax.grad(loss, argnums=(0, 1), has_aux=True)(
            variables["params"], inputs
        )
        return {
            "evaluation": network.apply(variables, *inputs, False),
            "training": out,
            "statistics": updated,
            "gradients": gradients,
        }

    return [jax.jit(functools.partial(everything, network))() for network in (of_blocks, plain)]


# In batches, of sizes that divide into blocks and such that do not.
SIZES = [(2, 32, 16), (1, 31, 17), (1, 3, 9)]


@pytest.mark.parametrize("shape", SIZES)
def test_interlinked_network(shape, x64):
    # In float32 two nearly equal pixels of a pooled block may change places, and so gradients.
    make = functools.partial(ICNN, 2, (2, 3, 2, 3), interlinks=1)
    found, expected = both_ways(make, jax.random.uniform(KEY, (*shape, 3), jnp.float32))
    assert_near(found, expected, rtol=1e-5, atol=1e-5)


def test_interlinked_network_of_the_papers_rows(x64):
    found, expected = both_ways(
        functools.partial(ICNN, 4, interlinks=1),
        jax.random.uniform(KEY, (2, 23, 18, 3), jnp.float32),
    )
    assert_near(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [(4,), (2, 3, 2, 3, 2)])
def test_interlinked_network_of_other_rows(channels, x64):
    make = functools.partial(ICNN, 2, channels, interlinks=2)
    found, expected = both_ways(make, jax.random.uniform(KEY, (2, 21, 17, 3), jnp.float32))
    assert_near(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (48, 64)])
def test_localizer(size, x64):
    make = functools.partial(VGG9Localizer, widths=(3, 4, 5, 6))
    mask = jax.nn.softmax(3 * jax.random.normal(KEY, (2, *size, 9), jnp.float32))
    found, expected = both_ways(make, mask)
    assert_near(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("coarse_stride", [1, 2])
def test_unet(coarse_stride, x64):
    make = functools.partial(
        UNet, 5, (0, 2, 4), (4, 6, 8), coarse_stride=coarse_stride, edges=True, bridge=True
    )
    image = jax.random.uniform(KEY, (2, 24 * coarse_stride, 16 * coarse_stride, 3), jnp.float32)
    found, expected = both_ways(make, image)
    assert_near(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_pixels_of_the_unet_are_moved_alike(side):
    image = jax.random.normal(KEY, (2, 4 * side, 3 * side, 3))
    found = unet.fold_by_products(image, side)
    np.testing.assert_array_equal(found, unet.fold(image, side))
    np.testing.assert_array_equal(unet.unfold_by_products(found, side), unet.unfold(found, side))


def test_bridge(x64):
    sizes = BROWS.fitted_sizes(31)

    def make(**fields):
        fine = FineNetworks(BROWS, (2, 3, 4), interlinks=1, bridge=True, **fields)
        return _WithContexts(fine)

    class _WithContexts:
        def __init__(self, fine):
            self._fine = fine

        def init(self, key, *inputs, train):
            return self._fine.init(key, *self._arguments(inputs, train))

        def apply(self, variables, *inputs, **how):
            *inputs, train = inputs
            return self._fine.apply(variables, *self._arguments(inputs, train), **how)

        def _arguments(self, inputs, train):
            patches, windows, face = inputs
            return patches, train, tuple(Context(window, face) for window in windows)

    uniform = functools.partial(jax.random.uniform, KEY, dtype=jnp.float32)
    patches = tuple(uniform((2, *size, 3)) for size in sizes)
    windows = tuple(uniform((2, 7, *context_size(size, 3))) for size in sizes)
    found, expected = both_ways(make, patches, windows, uniform((2, 7)))
    assert_near(found, expected, rtol=1e-5, atol=1e-5)


def test_statistics_over_devices_are_those_of_the_whole_batch():
    x = jax.random.uniform(KEY, (4, 18, 13, 3))
    alone = ICNN(4, (4, 4), platform="tpu")
    variables = random_variables(alone, x)

    def apply(model):
        return lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"])

    whole, updated = jax.jit(apply(alone))(variables, x)
    synced = jax.vmap(apply(alone.clone(axis_name="batch")), in_axes=(None, 0), axis_name="batch")
    split, split_updated = jax.jit(synced)(variables, x.reshape(2, 2, *x.shape[1:]))
    np.testing.assert_allclose(split.reshape(whole.shape), whole, atol=1e-4)
    for own, expected in zip(jax.tree.leaves(split_updated), jax.tree.leaves(updated), strict=True):
        np.testing.assert_allclose(own[0], expected, atol=1e-5)
        np.testing.assert_array_equal(own[0], own[1])


def test_bfloat16_is_as_near_as_without_folding():
    x = jax.random.uniform(KEY, (2, 27, 40, 3))
    exact = ICNN(3, platform="cpu")
    variables = random_variables(exact, x)

    def logits(network):
        return jax.jit(lambda v: network.apply(v, x, train=False))(variables)

    expected = logits(exact)
    plain = logits(exact.clone(dtype=jnp.bfloat16))
    found = logits(exact.clone(dtype=jnp.bfloat16, platform="tpu"))
    assert found.dtype == jnp.float32
    assert jnp.std(found - expected) < 1.5 * jnp.std(plain - expected)


def lowered(network, platform):
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(lambda: network.init(KEY, jnp.zeros(x.shape), train=False))
    traced = jax.jit(lambda v, x: network.apply(v, x, train=False)).trace(variables, x)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_only_tpu_folds():
    assert lowered(ICNN(2), "cpu") == lowered(ICNN(2, platform="cpu"), "cpu")
    assert lowered(ICNN(2, platform="cuda"), "cuda") == lowered(ICNN(2), "cuda")
    # A convolution of 8 channels is one of 128.
    assert "-> tensor<1x4x4x128xf32>" in lowered(ICNN(2, platform="tpu"), "tpu")


def test_the_parser_tells_its_networks_the_platform():
    model = STNiCNN((15, 15), platform="tpu").bind({})
    assert [model.coarse.platform, model.localizer.platform] == ["tpu", "tpu"]
    assert model.fine.platform == "tpu"
    whole = STNiCNN((15, 15), coarse_network="unet", platform="tpu").bind({})
    assert whole.coarse.platform == "tpu"


def test_a_program_exported_for_several_platforms_is_right_on_each():
    x = jax.random.uniform(KEY, (1, 12, 20, 3))
    network = ICNN(2, (4, 4))
    variables = random_variables(network, x)

    def apply(network):
        return lambda v, x: network.apply(v, x, train=False)

    expected = jax.jit(apply(network))(variables, x)
    for platform in ("cpu", "tpu"):  # at hand where it was traced
        program = jax.jit(apply(network.clone(platform=platform)))
        exported = jax.export.export(program, platforms=["cpu", "tpu"])(variables, x)
        np.testing.assert_allclose(exported.call(variables, x), expected, atol=1e-5)
