"""Initial weights from trained ones of other classes, parts and networks."""

import re

import jax
import numpy as np
import pytest
from conftest import random_variables, small_model
from flax import traverse_util

from jax_stn_icnn.anatomy import ELEVEN, NINE, NINETEEN, Anatomy, Part
from jax_stn_icnn.io import weights
from jax_stn_icnn.models.channel_names import channel_names
from jax_stn_icnn.models.pipeline import variable_shapes
from jax_stn_icnn.train.stages import NETWORKS
from jax_stn_icnn.train.transfer import load_variables

pytestmark = pytest.mark.slow

FRAME = 32
TINY = {"coarse_channels": (8, 16), "fine_channels": (8, 16), "coarse_size": 32, "cropper": "vgg9"}
UNET = {"coarse_network": "unet", "coarse_stride": 2, "windows": "fitted"}
SIX = Anatomy(
    name="six",
    classes=("background", "face", "hair", "eye_1", "eye_2", "mouth"),
    parts=(
        Part("eye_1", ("eye_1",), network="eye", mirrored=False, window=(69, 115)),
        Part("eye_2", ("eye_2",), network="eye", mirrored=True, window=(69, 115)),
        Part("mouth", ("mouth",), network="mouth", mirrored=False, window=(91, 121)),
    ),
    pairs=(("eye_1", "eye_2"),),
    groups=(),
    colours=((0, 0, 0),) * 6,
)
# The classes, the parts and the labels of the mouth of ELEVEN in another order.
*FACE, MOUTH = NINE.parts
SHUFFLED = Anatomy(
    name="shuffled",
    classes=("background", *ELEVEN.classes[4:], *ELEVEN.classes[1:4]),
    parts=(*FACE[2:], MOUTH._replace(classes=("lower_lip", *MOUTH.classes[:2])), *FACE[:2]),
    pairs=ELEVEN.pairs,
    groups=(),
    colours=ELEVEN.colours,
)


def model_of(anatomy, **options):
    return small_model(anatomy=anatomy, **TINY | options)


@pytest.fixture
def transfer(tmp_path):
    """Loads random variables of one model into another, and returns the variables of all."""

    def run(old, new, networks=NETWORKS):
        variables, fresh = random_variables(old), random_variables(new, seed=1)
        weights.save_weights(tmp_path / weights.WEIGHTS, variables, old.config, FRAME)
        loaded = load_variables(str(tmp_path), new, fresh, networks)
        assert weights.shapes(loaded.variables) == weights.shapes(fresh)
        return variables, fresh, loaded

    return run


def segment(model, patches):
    return model.fine(patches, False)


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def counts(summary):
    """Returns the numbers in the titles of a summary."""
    found = re.findall(r"^  (\D+?) (\d+) variables:$", summary, re.MULTILINE)
    return {title: int(number) for title, number in found}


@pytest.mark.parametrize(
    "model",
    [
        model_of(NINETEEN, **UNET, bridge=True),
        model_of(SIX, coarse_network="unet"),
        model_of(SIX, cropper="small", coarse_size=128),
        model_of(NINE, cropper="resnet18"),
        model_of(NINE, cropper="centroid"),
    ],
)
def test_every_named_channel_exists(model):
    shapes = weights.shapes(variable_shapes(model))
    for path, names in channel_names(model.config).items():
        *_, inputs, outputs = shapes[f"params/{'/'.join(path)}/kernel"]
        assert (inputs if names.inputs is None else len(names.inputs)) == inputs
        assert (outputs if names.outputs is None else len(names.outputs)) == outputs
        assert len(set(names.inputs or ())) == len(names.inputs or ())
        assert len(set(names.outputs or ())) == len(names.outputs or ())


@pytest.mark.parametrize("source", ["file", "run"])
def test_the_same_model_is_loaded_to_the_bit(source, tmp_path):
    model = model_of(NINETEEN, **UNET, attention=1, edge_head=True, bridge=True)
    variables = random_variables(model)
    weights.save_weights(tmp_path / weights.WEIGHTS, variables, model.config, FRAME)
    path = tmp_path / weights.WEIGHTS if source == "file" else tmp_path
    loaded = load_variables(str(path), model, random_variables(model, seed=1))
    assert_equal(loaded.variables, variables)
    assert counts(loaded.summary) == {"loaded": len(jax.tree.leaves(variables))}


@pytest.mark.slow
def test_weights_in_the_package_are_loaded_by_name():
    loaded = weights.load_weights(weights.weights_file("nineteen"))
    fresh = jax.tree.map(np.zeros_like, loaded.variables)
    assert_equal(load_variables("nineteen", loaded.model, fresh).variables, loaded.variables)


def test_a_missing_file_is_named(tmp_path):
    model = model_of(NINE, cropper="centroid")
    with pytest.raises(FileNotFoundError, match="init_from: .*nothing"):
        load_variables(str(tmp_path / "nothing"), model, random_variables(model))


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [(NINETEEN, SIX), (SIX, NINETEEN), (ELEVEN, NINETEEN)])
def test_a_class_of_both_anatomies_has_the_logits_of_the_loaded_network(transfer, old, new):
    models = [model_of(anatomy, **UNET) for anatomy in (old, new)]
    variables, fresh, loaded = transfer(*models)
    image = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    before, now, initial = (
        model.apply(tree, image, method="coarse_stage")
        for model, tree in zip(
            (*models, models[1]), (variables, loaded.variables, fresh), strict=True
        )
    )
    for i, name in enumerate(new.classes):
        if name in old.classes:
            j = old.classes.index(name)
            np.testing.assert_allclose(now.logits[..., i], before.logits[..., j], atol=1e-5)
        else:
            layer = loaded.variables["params"]["coarse"]["logits"]
            own = fresh["params"]["coarse"]["logits"]
            assert_equal(layer["bias"][i :: new.num_classes], own["bias"][i :: new.num_classes])
    global_names = [[a.classes[i] for i in a.global_ids] for a in (old, new)]
    for i, name in enumerate(global_names[1]):
        if name in global_names[0]:
            expected = before.global_logits[:, global_names[0].index(name)]
            np.testing.assert_allclose(now.global_logits[:, i], expected, atol=1e-5)
            assert not np.allclose(initial.global_logits[:, i], expected, atol=1e-2)


@pytest.mark.slow
def test_an_anatomy_in_another_order_has_the_same_outputs(transfer):
    old, new = (model_of(anatomy, windows="fitted") for anatomy in (ELEVEN, SHUFFLED))
    variables, _, loaded = transfer(old, new)
    assert counts(loaded.summary) == {"loaded": len(jax.tree.leaves(variables))}
    image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    before = old.apply(variables, image, method="coarse_stage").logits
    now = new.apply(loaded.variables, image, method="coarse_stage").logits
    np.testing.assert_allclose(now, before[..., ELEVEN.ids(SHUFFLED.classes)], atol=1e-5)

    patches = [image[:, : size[0], : size[1]] for size in old.config.patch_sizes]
    parts = [[part.name for part in anatomy.parts] for anatomy in (ELEVEN, SHUFFLED)]
    order = [parts[0].index(name) for name in parts[1]]
    before = old.apply(variables, patches, method=segment)
    now = new.apply(loaded.variables, [patches[i] for i in order], method=segment)
    for part, found, i in zip(SHUFFLED.parts, now, order, strict=True):
        labels = [0, *(1 + ELEVEN.parts[i].classes.index(name) for name in part.classes)]
        np.testing.assert_allclose(found, before[i][..., labels], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("cropper", "size"), [("vgg9", 32), ("small", 128), ("resnet18", 32)])
def test_localizers_are_loaded_by_classes_and_parts(transfer, cropper, size):
    options = {"cropper": cropper, "coarse_size": size}
    old, new = model_of(ELEVEN, **options), model_of(SHUFFLED, **options)
    variables, _, loaded = transfer(old, new)
    probs = np.random.default_rng(0).random((1, size, size, 11), np.float32)
    before = old.apply(variables, probs, (FRAME, FRAME), method="localize")
    probs = probs[..., ELEVEN.ids(SHUFFLED.classes)]
    now = new.apply(loaded.variables, probs, (FRAME, FRAME), method="localize")
    names = [part.name for part in ELEVEN.parts]
    order = [names.index(part.name) for part in SHUFFLED.parts]
    np.testing.assert_allclose(now, before[:, order], atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (
            model_of(NINETEEN, **UNET),
            model_of(SIX, **UNET),
            [
                "    coarse/finer 2 (new: face)",
                "    coarse/logits 2 (new: face, mouth)",
                "    localizer/conv_0 5 (new: mouth)",
                "    fine/mouth/head_1/conv 6 (another shape)",
                "    fine/brow 52",
            ],
        ),
        (
            model_of(NINETEEN, **UNET),
            model_of(NINE),
            ["    localizer 38", "    coarse 52 (not in the file)", "    coarse 42"],
        ),
        (
            model_of(NINE),
            model_of(NINETEEN, **UNET),
            ["    localizer 38", "    coarse 42 (not in the file)", "    coarse 52"],
        ),
        (
            model_of(NINE),
            model_of(NINE, patch_size=21, windows="fitted", cropper="small", coarse_size=128),
            ["    coarse 52", "    localizer 86 (another shape; not in the file)"],
        ),
        (
            model_of(NINE),
            model_of(NINE, interlinks=2),
            ["    fine/eye/interlink_1_row_0_mix/conv 6 (not in the file)", "    and 10 more"],
        ),
    ],
)
def test_the_summary_lists_what_is_loaded_and_what_is_not(transfer, old, new, lines):
    variables, fresh, loaded = transfer(old, new)
    for line in lines:
        assert line in loaded.summary.splitlines()
    numbers = counts(loaded.summary)
    total = sum(numbers.get(title, 0) for title in ("loaded", "loaded in part", "initialized"))
    assert total == len(jax.tree.leaves(fresh))
    found, old_flat, new_flat = (
        traverse_util.flatten_dict(tree) for tree in (loaded.variables, variables, fresh)
    )
    equal = sum(
        old_flat[name].shape == value.shape and np.array_equal(value, old_flat[name])
        for name, value in found.items()
        if name in old_flat
    )
    assert equal >= numbers["loaded"]
    initial = sum(np.array_equal(value, new_flat[name]) for name, value in found.items())
    assert initial == numbers.get("initialized", 0)


def test_a_norm_is_loaded_only_with_its_convolution(transfer):
    _, fresh, loaded = transfer(
        model_of(NINETEEN, **UNET), model_of(NINETEEN, **UNET | {"coarse_stride": 1})
    )
    for collection in ("params", "batch_stats"):
        expected = fresh[collection]["coarse"]["down_0"]
        assert_equal(loaded.variables[collection]["coarse"]["down_0"], expected)


def test_what_an_option_adds_is_initialized_and_what_it_removes_is_listed(transfer):
    plain = model_of(NINE, coarse_network="unet")
    attending = model_of(NINE, coarse_network="unet", attention=1, edge_head=True)
    variables, fresh, loaded = transfer(plain, attending)
    for name in ("attention_1", "edges"):
        found = loaded.variables["params"]["coarse"].pop(name)
        assert_equal(found, fresh["params"]["coarse"][name])
    assert_equal(loaded.variables, variables)
    variables, _, loaded = transfer(attending, plain)
    not_used = loaded.summary.split("not used 9 variables:\n")[1].splitlines()
    assert not_used == ["    coarse/attention_1 7", "    coarse/edges 2"]


def test_networks_that_are_not_listed_are_initialized(transfer):
    variables, fresh, loaded = transfer(model_of(NINETEEN, **UNET), model_of(NINE), ("fine",))
    for collection in ("params", "batch_stats"):
        found = loaded.variables[collection]
        assert_equal(found["fine"], variables[collection]["fine"])
        assert_equal(found["localizer"], fresh[collection]["localizer"])
    assert "    localizer 38 (not in init_networks)" in loaded.summary.splitlines()


@pytest.mark.parametrize(
    ("networks", "remedy"),
    [
        (("coarse",), ("localizer", "fine")),
        (("coarse", "fine"), ("fine",)),
        (("coarse", "localizer"), ("localizer",)),
    ],
)
def test_a_listed_network_that_does_not_fit_is_refused_with_what_works(transfer, networks, remedy):
    old, new = model_of(NINETEEN, **UNET), model_of(NINE)
    message = (
        "no layer that fits the model's coarse; set init_networks=(.*) to load what fits\n.*unet"
    )
    with pytest.raises(ValueError, match=message) as error:
        transfer(old, new, networks)
    assert re.search(message, str(error.value))[1] == str(remedy)
    transfer(old, new, remedy)


def test_weights_of_which_nothing_fits_are_refused(transfer):
    brows = Anatomy("brows", NINE.classes[:3], NINE.parts[:2], (), (), NINE.colours[:3])
    eyes = ("background", "eye_1")
    other = Anatomy("eye", eyes, NINE.parts[2:3], (), (), NINE.colours[:2])
    old = model_of(brows, cropper="centroid")
    new = model_of(other, coarse_network="unet")
    with pytest.raises(ValueError, match="model's coarse and localizer and fine; set init_from=''"):
        transfer(old, new)
