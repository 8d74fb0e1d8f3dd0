"""Networks on BlockFeatures, as on a TPU, against the same networks on channels-first arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import BROWS, random_variables
from test_unet import FIVE

from jax_stn_icnn.models.bridge import Context, context_size
from jax_stn_icnn.models.config import ModelConfig
from jax_stn_icnn.models.efficientnet import EfficientNetLite0
from jax_stn_icnn.models.fine import FineNetworks
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.localizer import VGG9Localizer
from jax_stn_icnn.models.unet import UNet
from jax_stn_icnn.ops import space_to_depth
from jax_stn_icnn.ops.convolution import convolve
from jax_stn_icnn.ops.platform import use_platform
from jax_stn_icnn.ops.pooling import max_pool

# Needed on a TPU only; CI runs them.
pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


def assert_close(found, expected, rtol, atol):
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


@pytest.mark.parametrize("start", [0, -2])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (1, 5)])
def test_to_blocks_gathers_blocks_and_from_blocks_is_its_inverse(size, start):
    image = jax.random.normal(KEY, (2, *size, 3))
    x = space_to_depth.to_blocks(image, (4, 4), start)
    assert x.channels == 3 and x.size == size
    padded = np.pad(image, ((0, 0), (-start, 8), (-start, 8), (0, 0)))
    np.testing.assert_array_equal(
        x.blocks[1, 0, 1], padded[1, :4, 4:8].transpose(2, 0, 1).reshape(-1)
    )
    np.testing.assert_array_equal(space_to_depth.from_blocks(x), image)


@pytest.mark.parametrize("stride", [1, 2], ids=["blocks half as large", "blocks as large"])
@pytest.mark.parametrize("block", [(4, 4), (2, 2)])
@pytest.mark.parametrize("size", [(16, 8), (15, 9), (6, 13), (1, 2)])
def test_max_pool_and_its_gradient_among_equal_pixels(size, block, stride):
    # Few different integers, so that many pixels are equal.
    image = jax.random.randint(KEY, (2, *size, 3), -3, 4).astype(jnp.float32)
    pooled_block = tuple(side // 2 * stride for side in block)
    half = tuple(-(-length // 2) for length in size)
    gradient = jax.random.normal(jax.random.key(1), (2, *half, 3))

    @jax.jit
    def both(image):
        def plain(x):
            return max_pool(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)

        def in_blocks(x):
            blocks = space_to_depth.to_blocks(x, block)
            pooled = space_to_depth.max_pool(blocks, pooled_block)
            assert pooled.block == pooled_block
            return space_to_depth.from_blocks(pooled)

        return [(f(image), *jax.vjp(f, image)[1](gradient)) for f in (in_blocks, plain)]

    found, expected = both(image)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


CONVOLUTIONS = [  # side of the kernel, block, start of the blocks
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
    image = jax.random.normal(KEY, (2, *size, 3))
    kernel = jax.random.normal(jax.random.key(1), (side, side, 3, 4))

    @jax.jit
    def both(image, kernel):
        out = space_to_depth.convolve(space_to_depth.to_blocks(image, block, start), kernel)
        expected = convolve(image.transpose(0, 3, 1, 2), kernel)
        return space_to_depth.from_blocks(out), expected.transpose(0, 2, 3, 1)

    np.testing.assert_allclose(*both(image, kernel), atol=5e-5)


def test_a_kernel_spans_few_blocks():
    """2 x 2 blocks where the kernel spans half a block at most, 3 x 3 otherwise."""
    x = space_to_depth.to_blocks(jnp.ones((1, 12, 12, 1)), (4, 4))
    shifted = space_to_depth.convolve(x, jnp.ones((5, 5, 1, 1)))
    assert shifted.start == -2 and shifted.blocks.shape[1:3] == (4, 4)
    back = space_to_depth.convolve(space_to_depth.zero_padding(shifted), jnp.ones((5, 5, 1, 1)))
    assert back.start == 0 and back.blocks.shape[1:3] == (3, 3)


@pytest.mark.parametrize("size", [(8, 12), (7, 12), (9, 11), (13, 5)])
@pytest.mark.parametrize(
    ("block", "below_block"),
    [((4, 4), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (1, 1)), ((1, 1), (1, 1))],
)
def test_the_row_below_is_upsampled(block, below_block, size):
    image = jax.random.normal(KEY, (2, *size, 3))
    below = jax.random.normal(jax.random.key(1), (2, *(-(-n // 2) for n in size), 2))
    kernel = jax.random.normal(jax.random.key(2), (5, 5, 5, 4))

    @jax.jit
    def both():
        blocks = [space_to_depth.to_blocks(image, block), kernel]
        out = space_to_depth.convolve(*blocks, space_to_depth.to_blocks(below, below_block))
        doubled = jnp.repeat(jnp.repeat(below, 2, axis=1), 2, axis=2)
        stacked = jnp.concatenate([image, doubled[:, : size[0], : size[1]]], axis=3)
        expected = convolve(stacked.transpose(0, 3, 1, 2), kernel)
        return space_to_depth.from_blocks(out), expected.transpose(0, 2, 3, 1)

    np.testing.assert_allclose(*both(), atol=1e-4)


def on_both_platforms(network, *inputs, arguments=lambda *inputs, train: (*inputs, train)):
    """Returns values, gradients and statistics of a network, traced for a TPU and for a CPU."""
    inputs = jax.tree.map(jnp.asarray, inputs)

    def initial():
        return network.init(KEY, *arguments(*inputs, train=False))

    shapes = jax.eval_shape(initial)
    with use_platform("tpu"):
        assert jax.tree.map(jnp.shape, jax.eval_shape(initial)) == jax.tree.map(jnp.shape, shapes)
    variables = random_leaves(shapes)
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def everything():
        def loss(params, inputs):
            out, updated = network.apply(
                {"params": params, **rest},
                *arguments(*inputs, train=True),
                mutable=["batch_stats"],
            )
            leaves = jax.tree.leaves(out)
            weights = [jax.random.normal(KEY, leaf.shape) for leaf in leaves]
            total = sum(jnp.sum(w * leaf) for w, leaf in zip(weights, leaves, strict=True))
            return total / leaves[0].size ** 0.5, (out, updated)

        gradients, (out, updated) = jax.grad(loss, argnums=(0, 1), has_aux=True)(
            variables["params"], inputs
        )
        return {
            "evaluation": network.apply(variables, *arguments(*inputs, train=False)),
            "training": out,
            "statistics": updated,
            "gradients": gradients,
        }

    outputs = []
    for platform in ("tpu", "cpu"):
        with use_platform(platform):
            outputs.append(jax.jit(everything)())
    return outputs


def in_float64(network):
    """Returns a network class that computes in float64.

    In float32, nearly equal pixels of a max pool may swap, and with them gradients.
    """
    return type(network.__name__, (network,), {"dtype": property(lambda self: jnp.float64)})


def random_leaves(shapes):
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.8, 1.2, leaf.shape).astype(leaf.dtype)
        fan_in = max(np.prod(leaf.shape[:-1]), 1)
        return (rng.standard_normal(leaf.shape) / np.sqrt(fan_in)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


# Batches of sizes that are multiples of the blocks', and others.
SHAPES = [(2, 32, 16), (1, 31, 17), (1, 3, 9)]


@pytest.mark.parametrize("shape", SHAPES)
def test_interlinked_network(shape, x64):
    network = ICNN(2, (2, 3, 2, 3), interlinks=1, dtype=jnp.float64)
    found, expected = on_both_platforms(network, jax.random.uniform(KEY, (*shape, 3), jnp.float32))
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_interlinked_network_with_the_papers_rows(x64):
    network = ICNN(4, interlinks=1, dtype=jnp.float64)
    found, expected = on_both_platforms(
        network, jax.random.uniform(KEY, (2, 23, 18, 3), jnp.float32)
    )
    assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [(4,), (2, 3, 2, 3, 2)])
def test_interlinked_network_with_other_rows(channels, x64):
    network = ICNN(2, channels, interlinks=2, dtype=jnp.float64)
    image = jax.random.uniform(KEY, (2, 21, 17, 3), jnp.float32)
    found, expected = on_both_platforms(network, image)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (48, 64)])
def test_localizer(size, x64):
    probs = jax.nn.softmax(3 * jax.random.normal(KEY, (2, *size, 9), jnp.float32))
    found, expected = on_both_platforms(in_float64(VGG9Localizer)(), probs)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("coarse_stride", [1, 2])
def test_unet(coarse_stride, x64):
    config = ModelConfig(
        anatomy=FIVE,
        coarse_network="unet",
        coarse_channels=(4, 6, 8),
        coarse_stride=coarse_stride,
        edge_head=True,
        bridge=True,
    )
    image = jax.random.uniform(KEY, (2, 24 * coarse_stride, 16 * coarse_stride, 3), jnp.float32)
    found, expected = on_both_platforms(in_float64(UNet)(config), image)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 64), (30, 34)], ids=["blocks", "no multiple of four"])
def test_encoder(size, x64):
    network = EfficientNetLite0(dtype=jnp.float64)
    image = jax.random.uniform(KEY, (2, *size, 3), jnp.float32)
    found, expected = on_both_platforms(network, image)
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_pixels_of_the_unet_are_moved_alike(side):
    image = jax.random.normal(KEY, (2, 4 * side, 3 * side, 3))
    expected = space_to_depth.space_to_depth(image, side)
    with use_platform("tpu"):
        found = space_to_depth.space_to_depth(image, side)
        back = space_to_depth.depth_to_space(found, side)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(back, space_to_depth.depth_to_space(expected, side))


def test_bridge(x64):
    config = ModelConfig(
        anatomy=BROWS,
        patch_size=31,
        windows="fitted",
        coarse_network="unet",
        fine_channels=(2, 3, 4),
        interlinks=1,
        bridge=True,
    )

    def arguments(patches, windows, face, *, train):
        return patches, train, tuple(Context(window, face) for window in windows)

    uniform = functools.partial(jax.random.uniform, KEY, dtype=jnp.float32)
    patches = tuple(uniform((2, *size, 3)) for size in config.patch_sizes)
    windows = tuple(uniform((2, 7, *context_size(size, 3))) for size in config.patch_sizes)
    found, expected = on_both_platforms(
        in_float64(FineNetworks)(config), patches, windows, uniform((2, 7)), arguments=arguments
    )
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_statistics_over_devices_are_those_of_the_whole_batch():
    x = jax.random.uniform(KEY, (4, 18, 13, 3))
    alone = ICNN(4, (4, 4))
    variables = random_variables(alone, x)

    def apply(model):
        return lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"])

    with use_platform("tpu"):
        expected, updated = jax.jit(apply(alone))(variables, x)
        synced = apply(alone.clone(axis_name="batch"))
        synced = jax.vmap(synced, in_axes=(None, 0), axis_name="batch")
        split, split_updated = jax.jit(synced)(variables, x.reshape(2, 2, *x.shape[1:]))
    np.testing.assert_allclose(split.reshape(expected.shape), expected, atol=1e-4)
    for own, one in zip(jax.tree.leaves(split_updated), jax.tree.leaves(updated), strict=True):
        np.testing.assert_allclose(own[0], one, atol=1e-5)
        np.testing.assert_array_equal(own[0], own[1])


def test_bfloat16_is_as_close_as_on_other_platforms():
    x = jax.random.uniform(KEY, (2, 27, 40, 3))
    exact = ICNN(3)
    variables = random_variables(exact, x)

    def logits(network, platform="cpu"):
        with use_platform(platform):
            return jax.jit(lambda v: network.apply(v, x, train=False))(variables)

    half = exact.clone(dtype=jnp.bfloat16)
    expected, plain, found = logits(exact), logits(half), logits(half, "tpu")
    assert found.dtype == jnp.float32
    assert jnp.std(found - expected) < 1.5 * jnp.std(plain - expected)


def test_only_a_tpu_computes_in_blocks():
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)

    def lowered(platform):
        with use_platform(platform):
            variables = jax.eval_shape(lambda: ICNN(2).init(KEY, jnp.zeros(x.shape), train=False))
            traced = jax.jit(lambda v, x: ICNN(2).apply(v, x, train=False)).trace(variables, x)
            return traced.lower(lowering_platforms=("cuda",)).as_text()

    # A convolution of 8 channels is one of 128.
    blocks = "-> tensor<1x4x4x128xf32>"
    assert blocks in lowered("tpu")
    assert all(blocks not in lowered(platform) for platform in ("cpu", "gpu", "onnx"))
