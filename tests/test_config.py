import importlib
import json

import pytest
from absl import app, flags
from ml_collections import config_flags

from configs import common
from jax_stn_icnn.data.config import AugmentConfig
from jax_stn_icnn.train import arguments
from jax_stn_icnn.train import config as configs
from jax_stn_icnn.train.stages import make_stages, plan

FILES = [
    "common",
    "synthetic",
    "synthetic_nine",
    "celebamask",
    "celebamask_full",
    "full_head",
    "full_head_coarse",
    "full_head_far",
    "full_head_portraits",
    "full_head_refined",
    "helen",
    "helen_full",
    "celebamask_from_helen",
    "clrnet",
    "consensus",
    "self_attention",
]


# A coarse network with an encoder.
ENCODER = {
    "model__coarse_network": "efficientnet_lite0",
    "model__coarse_stride": 2,
    "model__anatomy": "eleven",
}


def make(name="common", **changes):
    config = importlib.import_module(f"configs.{name}").get_config()
    for field, value in changes.items():
        section, _, leaf = field.rpartition("__")
        (config[section] if section else config)[leaf] = value
    return config


@pytest.mark.parametrize("name", FILES)
def test_configs_of_the_project_pass_and_name_their_command_and_result(name):
    configs.check(make(name))
    text = importlib.import_module(f"configs.{name}").__doc__
    command = "python train.py" if name == "synthetic" else f"--config configs/{name}.py"
    assert command in text and "result" in text.lower()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("init_encoder", "places"),
        ("coarse__encoder_lr_factor", 0.0),
        ("batch_size", 0),
        ("batch_size", True),
        ("batch_size", 2.0),
        ("stages", ("fine", "coarse")),
        ("stages", ()),
        ("stages", ("course",)),
        ("dataset__name", ""),
        ("dataset__framing", "crop"),
        ("dataset__unlabelled", ("photos", 1)),
        ("dataset__rare_classes", "hat"),
        ("dataset__rare_share", 1.5),
        ("dataset__paste", -0.1),
        ("mirror", 1),
        ("init_networks", ("fine", "coarse")),
        ("coarse__lr", 0.0),
        ("coarse__loss", "mse"),
        ("joint__lr_fine", float("nan")),
        ("joint__localizer_weight", -1.0),
        ("fine__jitter", -1),
        ("checkpoint_every_steps", -1),
    ],
)
def test_the_message_names_an_impossible_field(field, value):
    config = make()
    with config.ignore_type():
        section, _, leaf = field.rpartition("__")
        (config[section] if section else config)[leaf] = value
    with pytest.raises(ValueError, match=field.replace("__", r"\.") + " is "):
        configs.check(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__patch_size": 80}, r"(?s)model: .*patch_size is 80, but must be an odd number"),
        ({"model__coarse_strid": 2}, "model: 'coarse_strid' is no option of the model"),
        ({"photo__grayscale": 1.5}, r"(?s)photo: .*grayscale is 1.5, but must be a number in 0..1"),
        ({"photo__blur": -0.1}, r"(?s)photo: .*blur is -0.1, but must be a number of at least 0"),
        ({"photo__blurr": 0.1}, "photo: 'blurr' is no option of the augmentation"),
    ],
)
def test_the_message_names_the_section_of_an_impossible_option(changes, message):
    with pytest.raises(ValueError, match=message):
        configs.check(make(**changes))


def test_the_message_names_all_unknown_and_missing_fields():
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
        ({"part_weights": (1.0,) * 5}, "part_weights has 5 numbers, but .*'nine' has 6 parts"),
        (
            {"init_encoder": "imagenet"},
            "init_encoder is 'imagenet', but model.coarse_network = 'icnn' has no encoder",
        ),
        (
            {"coarse__encoder_lr_factor": 0.3},
            "coarse.encoder_lr_factor is 0.3, but model.coarse_network = 'icnn' has no encoder",
        ),
        (
            {**ENCODER, "init_encoder": "imagenet", "init_from": "runs/other"},
            "init_encoder is 'imagenet', but init_networks contains 'coarse'",
        ),
        ({"edges__task": 1.0}, "edges.task is 1.0 and model.edge_head is False"),
        ({"dataset__unlabelled": "photos"}, "dataset.unlabelled is 'photos', but only .*'distill'"),
        (
            {"dataset__rare_classes": ("nose", "hat"), "dataset__paste": 0.5},
            "rare_classes contains 'hat', but must contain classes of the anatomy 'nine', each",
        ),
        (
            {"dataset__rare_classes": ("nose", "nose"), "dataset__paste": 0.5},
            "rare_classes contains 'nose', but must .* each once",
        ),
        ({"dataset__rare_classes": ("nose",)}, "rare classes need a share or a probability above"),
        ({"dataset__rare_share": 0.5}, r"rare_classes is \(\), dataset.rare_share 0.5"),
        (
            {
                "model__cropper": "centroid",
                "stages": ("joint",),
                "joint__lr_coarse": 0.0,
                "joint__lr_fine": 0.0,
            },
            "joint.lr_coarse, joint.lr_fine are all 0",
        ),
        ({"model__anatomy": "nineteen"}, "'synthetic_faces' does not label ear_1.* 'nineteen'"),
        ({"model__cropper": "centroid"}, "stages contains 'localizer'"),
        ({"stages": ("fine",), "fine__epochs": 0}, "0 epochs"),
        (
            {"joint__lr_coarse": 0.0, "joint__lr_localizer": 0.0, "joint__lr_fine": 0.0},
            "are all 0",
        ),
    ],
)
def test_the_message_names_a_contradiction(changes, message):
    with pytest.raises(ValueError, match=message):
        configs.check(make(**changes))


def test_the_augmentation_has_the_flags_and_the_strengths():
    config = make(augment=False, mirror=True, photo__blur=0.5)
    assert configs.make_augmentation(config) == AugmentConfig(mirror=True, blur=0.5)


@pytest.mark.parametrize("name", ["dataset", "dataset.sources", "model", "photo", "joint"])
@pytest.mark.parametrize("value", [None, 3, [], "text"])
def test_a_value_instead_of_a_section_is_named(name, value):
    config = make()
    *path, field = name.split(".")
    section = config[path[0]] if path else config
    with section.unlocked(), section.ignore_type():
        section[field] = value
    with pytest.raises(ValueError, match=rf"{name} is (not a field|no section|missing)"):
        configs.check(config)


def test_a_long_list_of_problems_is_cut():
    config = make(**{f"field_{i}": i for i in range(30)})
    with pytest.raises(ValueError) as caught:
        configs.check(config)
    first, *lines = str(caught.value).splitlines()
    assert lines[0] == "  field_0 is not a field" and lines[10:] == ["  and 20 more"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "\0" * 40, "[" * 100_000])
def test_a_damaged_file_of_a_config_is_named(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        configs.read(path)
    path.write_text(json.dumps({"seed": -1}))
    with pytest.raises(
        ValueError, match=f"{path}: the config is wrong:\n  dataset.sources is missing"
    ):
        configs.read(path)
    path.write_text(configs.to_json(make()))
    assert configs.differences(configs.read(path), json.loads(path.read_text())) == []


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--config.foo=1", "'foo'"), ("--config.fine.lrr=1", "'lrr' Did you mean \"lr\" instead of")],
)
@pytest.mark.parametrize("is_default", [True, False])
def test_an_unknown_field_on_the_command_line_is_one_line(flag, message, is_default, monkeypatch):
    path = common.__file__
    command = ["train.py", flag] if is_default else ["train.py", f"--config={path}", flag]
    values = flags.FlagValues()
    monkeypatch.setattr(app, "FLAGS", values)
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match=f"error: the config has no field {message}"):
        with arguments.name_unknown_field():
            config_flags.DEFINE_config_file("config", path, flag_values=values)
        arguments.parse_flags(command)


def test_differences_omit_the_free_fields():
    saved = json.loads(configs.to_json(make()))
    config = make(dataset__data_dir="elsewhere", validation_images=0, fine__lr=1e-3, seed=7)
    assert configs.differences(make(), saved) == []
    assert configs.differences(config, saved) == [
        "fine.lr: was 0.0008, is 0.001",
        "seed: was 0, is 7",
    ]


def test_stages_of_0_epochs_are_omitted():
    stages = make_stages(make(coarse__epochs=0, stages=("coarse", "fine", "joint")))
    assert [stage.name for stage in stages] == ["fine", "joint"]
    assert stages[0].true_windows and stages[0].jitter == 8


def test_a_rate_of_0_freezes_a_network_and_a_weight_of_0_omits_a_term():
    changes = {"joint__lr_coarse": 0.0, "joint__coarse_weight": 0.0, "stages": ("joint",)}
    (stage,) = make_stages(make(**changes))
    assert stage.learning_rates.keys() == {"localizer", "fine"}
    assert stage.loss_weights == {"fine": 1.0, "localizer": make().joint.localizer_weight}


def test_self_distillation_weights_each_term_relative_to_its_counterpart():
    changes = {"stages": ("distill",), "distill__weight": 0.5, "distill__lr_coarse": 0.0}
    (stage,) = make_stages(make(**changes))
    weights, joint = stage.loss_weights, make().joint
    assert weights["coarse"] == 2 * weights["coarse_distilled"] == joint.coarse_weight
    assert weights["fine"] == 2 * weights["fine_distilled"] == 1
    assert stage.learning_rates.keys() == {"localizer", "fine"}
    assert stage.has_teacher and stage.ema_decay == make().distill.decay
    assert not make_stages(make(stages=("joint",)))[0].has_teacher
    assert make_stages(make(stages=("joint",), ema_decay=0.9))[0].ema_decay == 0.9


def test_joint_training_with_centroids_has_no_localizer():
    (stage,) = make_stages(make(model__cropper="centroid", stages=("joint",)))
    assert stage.learning_rates.keys() == stage.loss_weights.keys() == {"coarse", "fine"}


def test_the_plan_has_the_stages_in_order():
    stages = {"stages": ("coarse", "fine"), "coarse__epochs": 2, "fine__epochs": 3}
    phases, steps_per_epoch = plan(make(batch_size=4, **stages), 10)
    assert steps_per_epoch == 2
    assert [(phase.stage.name, phase.first, phase.last) for phase in phases] == [
        ("coarse", 0, 4),
        ("fine", 4, 10),
    ]


def test_a_split_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="has 3 records, fewer than batch_size = 4"):
        plan(make(batch_size=4), 3)
