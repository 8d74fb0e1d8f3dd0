import importlib
import json

import pytest

from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train.stages import Distillation, make_stages, plan

FILES = [
    "common",
    "synthetic",
    "synthetic_nine",
    "celebamask",
    "celebamask_full",
    "helen",
    "helen_full",
    "celebamask_from_helen",
    "clrnet",
    "consensus",
    "self_attention",
]


def make(name="common", **changes):
    config = importlib.import_module(f"configs.{name}").get_config()
    for field, value in changes.items():
        section, _, leaf = field.rpartition("__")
        (config[section] if section else config)[leaf] = value
    return config


@pytest.mark.parametrize("name", FILES)
def test_configs_of_the_project_pass(name):
    configs.check(make(name))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("batch_size", 0),
        ("batch_size", True),
        ("batch_size", 2.0),
        ("stages", ("fine", "coarse")),
        ("stages", ()),
        ("stages", ("course",)),
        ("part_weights", (1.0, -1.0)),
        ("dataset__name", "helan"),
        ("classes", "twelve"),
        ("model__windows", "round"),
        ("model__coarse_channels", (8,)),
        ("model__coarse_stride", 0),
        ("model__coarse_size", 72),
        ("mirror", 1),
        ("photo__grayscale", 1.5),
        ("photo__blur", -0.1),
        ("init_networks", ("fine", "coarse")),
        ("model__patch_size", 80),
        ("model__cropper", "vgg16"),
        ("model__dtype", "float16"),
        ("coarse__lr", 0.0),
        ("coarse__loss", "mse"),
        ("joint__lr_fine", float("nan")),
        ("joint__localizer_weight", -1.0),
        ("fine__jitter", -1),
        ("checkpoint__keep", 0),
    ],
)
def test_an_impossible_field_is_named(field, value):
    config = make()
    with config.ignore_type():
        section, _, leaf = field.rpartition("__")
        (config[section] if section else config)[leaf] = value
    with pytest.raises(ValueError, match=field.replace("__", r"\.") + " is "):
        configs.check(config)


def test_unknown_and_missing_fields_are_named_together():
    config = make()
    config.fine.jiter = 3
    del config.seed
    with pytest.raises(ValueError, match=r"(?s)fine\.jiter is not a field.*seed is missing"):
        configs.check(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__patch_size": 301}, "model.patch_size is 301"),
        ({"model__patch_size": 221, "model__windows": "fitted"}, "largest window has 259 pixels"),
        ({"model__patch_size": 221, "model__windows": "following"}, "largest window has 259 pix"),
        ({"part_weights": (1.0,) * 5}, "part_weights holds 5 numbers, but .*'nine' have 6 parts"),
        ({"model__coarse_stride": 2}, "model.coarse_stride is 2, but must be 1"),
        ({"edges__task": 1.0}, "edges.task is 1.0, but only a .*'unet'"),
        ({"model__cropper": "small", "model__coarse_size": 64}, "'small' takes only 128"),
        ({"model__bridge": True}, "model.bridge is True, but only a .*'unet'"),
        ({"dataset__unlabelled": "photos"}, "dataset.unlabelled is 'photos', but only .*'distill'"),
        ({"model__flip_test": True}, "model.flip_test is True, .* 'nine' only background has none"),
        ({"model__attention": 1}, "model.attention is 1, but only a .*'unet'"),
        (
            {"model__attention": 5, "model__coarse_network": "unet"},
            "model.attention is 5, .* in at most its 4 rows",
        ),
        (
            {
                "model__attention": 1,
                "model__coarse_network": "unet",
                "model__coarse_channels": (32, 64, 96, 120),
            },
            "model.coarse_channels holds 120 in a row .* must divide by 16",
        ),
        (
            {
                "model__bridge": True,
                "model__coarse_network": "unet",
                "model__patch_size": 31,
                "model__fine_channels": (8,) * 6,
            },
            "model.fine_channels has 6 rows, .* but the smallest window has only 31",
        ),
        (
            {
                "model__cropper": "centroid",
                "stages": ("joint",),
                "joint__lr_coarse": 0.0,
                "joint__lr_fine": 0.0,
            },
            "joint.lr_coarse, joint.lr_fine are all 0",
        ),
        (
            {"model__coarse_stride": 2, "model__anatomy": "eleven"},
            "model.coarse_stride is 2, which only .*'unet'",
        ),
        ({"model__anatomy": "nineteen"}, "'synthetic_faces' does not label ear_1.* 'nineteen'"),
        ({"model__cropper": "centroid"}, "stages holds 'localizer'"),
        (
            {"model__cropper": "centroid", "model__windows": "following", "stages": ("fine",)},
            "model.windows is 'following', but .* 'centroid' have one size",
        ),
        ({"stages": ("fine",), "fine__epochs": 0}, "0 epochs"),
        (
            {"joint__lr_coarse": 0.0, "joint__lr_localizer": 0.0, "joint__lr_fine": 0.0},
            "are all 0",
        ),
    ],
)
def test_contradictions(changes, message):
    with pytest.raises(ValueError, match=message):
        configs.check(make(**changes))


@pytest.mark.parametrize("windows", configs.WINDOWS)
def test_windows_decide_patches_and_whether_targets_follow(windows):
    config = make(model__windows=windows)
    configs.check(config)
    model = configs.make_model(config)
    square = ((81, 81),) * 6
    assert model.patch_sizes == (square if windows == "square" else NINE.fitted_sizes(81))
    assert model.following == (windows == "following")


def test_differences_name_fields_but_not_the_free_ones():
    earlier = json.loads(configs.to_json(make()))
    config = make(dataset__data_dir="elsewhere", pictures=0, fine__lr=1e-3, seed=7)
    assert configs.differences(make(), earlier) == []
    assert configs.differences(config, earlier) == [
        "fine.lr: was 0.0008, is 0.001",
        "seed: was 0, is 7",
    ]


def test_stages_without_epochs_are_left_out():
    stages = make_stages(make(coarse__epochs=0, stages=("coarse", "fine", "joint")))
    assert [stage.name for stage in stages] == ["fine", "joint"]
    assert stages[0].true_windows and stages[0].jitter == 8


def test_joint_stage_freezes_what_has_no_rate_and_drops_what_has_no_weight():
    changes = {"joint__lr_coarse": 0.0, "joint__coarse_weight": 0.0, "stages": ("joint",)}
    (stage,) = make_stages(make(**changes))
    assert stage.learning_rates.keys() == {"localizer", "fine"}
    assert stage.loss_weights == {"fine": 1.0, "localizer": make().joint.localizer_weight}


def test_self_distillation_weighs_each_term_beside_its_counterpart():
    changes = {"stages": ("distill",), "distill__weight": 0.5, "distill__lr_coarse": 0.0}
    (stage,) = make_stages(make(**changes))
    weights, joint = stage.loss_weights, make().joint
    assert weights["coarse"] == 2 * weights["coarse_distilled"] == joint.coarse_weight
    assert weights["fine"] == 2 * weights["fine_distilled"] == 1
    assert stage.learning_rates.keys() == {"localizer", "fine"}
    assert stage.distillation == Distillation(0.5, make().distill.decay)
    assert make_stages(make(stages=("joint",)))[0].distillation is None


def test_joint_stage_of_the_centroid_cropper_has_no_localizer():
    (stage,) = make_stages(make(model__cropper="centroid", stages=("joint",)))
    assert stage.learning_rates.keys() == stage.loss_weights.keys() == {"coarse", "fine"}


def test_plan_lays_stages_in_a_row():
    stages = {"stages": ("coarse", "fine"), "coarse__epochs": 2, "fine__epochs": 3}
    phases, steps_per_epoch = plan(make(batch_size=4, **stages), 10)
    assert steps_per_epoch == 2
    assert [(phase.stage.name, phase.first, phase.last) for phase in phases] == [
        ("coarse", 0, 4),
        ("fine", 4, 10),
    ]


def test_a_split_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="holds 3 records, fewer than batch_size = 4"):
        plan(make(batch_size=4), 3)
