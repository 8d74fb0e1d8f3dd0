"""Every field of a config and its default, from which the other configs start.

    python train.py --config configs/common.py

Expected result: not measured; the paper's model and stages at full length, on drawn faces.
"""

from ml_collections import ConfigDict, FieldReference

from jax_stn_icnn.models.config import ModelConfig


def source(name: str, weight: float = 1.0, split: str = "train", framing: str = "") -> ConfigDict:
    """Returns an entry of `config.dataset.sources`.

    Args:
        name: The name of a data set.
        weight: Its share of a batch, relative to that of `config.dataset.name`.
        split: A TFDS split.
        framing: How images become frames, as `config.dataset.framing`.
    """
    return ConfigDict({"name": name, "split": split, "weight": weight, "framing": framing})


def get_config() -> ConfigDict:
    """Returns the fields and their defaults."""
    config = ConfigDict()
    config.seed = 0  # of initial parameters, the order of the data, and augmentation

    config.dataset = ConfigDict()
    config.dataset.name = "synthetic_faces"  # or celebamask_hq, helen
    config.dataset.data_dir = "~/tensorflow_datasets"
    config.dataset.manual_dir = ""  # directory of the downloaded archive; empty: TFDS's default
    config.dataset.train = "train"  # TFDS splits, such as train[:100]
    config.dataset.validation = "validation"
    config.dataset.test = "test"
    # How images become frames: resize, pad or face (`jax_stn_icnn.anatomy.DataSet`); empty: as the
    # data set is registered, and face if it is not.
    config.dataset.framing = ""
    # Further data for the stages that train the coarse network: `source`s under keys of any name,
    # which may show the same data set in several framings:
    #   config.dataset.sources.figaro_wide = source("figaro", weight=0.5, framing="face_wide")
    config.dataset.sources = ConfigDict()
    # Images without labels, for the stage `distill`: a split of a prepared data set, such as
    # celebamask_hq/train[100:], a folder of photos, in which faces are detected, or several of
    # these; empty: none.
    config.dataset.unlabelled = FieldReference("", field_type=object)
    # Rare classes, such as ("glasses", "hat", "earring", "necklace"): the share of the examples of
    # `dataset.name` that is drawn from records with them, an equal part for each class, and the
    # probability that an example receives the region of one from another record (only with framing
    # resize).
    config.dataset.rare_classes = ()
    config.dataset.rare_share = 0.0
    config.dataset.paste = 0.0
    config.dataset.frame_size = 256  # side of the frame that windows are cropped from, in pixels
    config.dataset.num_workers = 0  # loader processes; 0: two threads

    # The options of `jax_stn_icnn.models.config.ModelConfig`, which documents them. `anatomy` is
    # the name of the classes: nine, eleven, nineteen, or one that the config's file registers.
    config.model = ConfigDict(ModelConfig().to_dict() | {"anatomy": "nine"})

    # Weights to start from: the directory of a run, a .safetensors file, or the name of weights in
    # the package, nine or nineteen; empty: random parameters. Every layer that fits is loaded.
    config.init_from = ""
    config.init_networks = ("coarse", "localizer", "fine")  # networks that are loaded from there
    # `imagenet`: the encoder of the coarse network starts from weights of ImageNet, which the
    # extra `encoder` installs; empty: it starts like all other parameters.
    config.init_encoder = ""
    config.batch_size = 32  # over all devices
    config.eval_batch_size = 16
    config.augment = True  # rotation, shift, scale, noise
    config.mirror = False  # mirrors a random half of the faces, and swaps the sides' classes
    # Strengths of the augmentation towards photos by amateurs; 0: off. The units are those of
    # `jax_stn_icnn.data.config.AugmentConfig`.
    config.photo = ConfigDict()
    config.photo.grayscale = 0.0
    config.photo.colour = 0.0
    config.photo.gamma = 0.0
    config.photo.contrast = 0.0
    config.photo.occlusion = 0.0
    config.photo.blur = 0.0
    config.photo.resolution = 0.0
    config.photo.noise = 0.0
    config.photo.jpeg = 0.0
    config.photo.rotation = 0.0
    config.photo.zoom = 0.0
    config.stages = ("coarse", "localizer", "fine", "joint")  # and "distill"
    config.part_weights = ()  # weights of the parts in the fine loss; empty: 1 for each
    config.halve_every_epochs = 5.0  # halves all learning rates
    # Decay, at each step, of a moving average of parameters and statistics, which is evaluated and
    # saved, and from which the next stage starts; 0: none.
    config.ema_decay = 0.0

    config.coarse = ConfigDict()
    config.coarse.epochs = 25
    config.coarse.lr = 2.3e-3
    # The encoder's learning rate over that of the rest of the coarse network, in all stages.
    config.coarse.encoder_lr_factor = 1.0
    # or binary_cross_entropy (eq. 16 of the paper), balanced_cross_entropy
    config.coarse.loss = "cross_entropy"

    config.localizer = ConfigDict()
    config.localizer.epochs = 25
    config.localizer.lr = 1.7e-3

    config.fine = ConfigDict()
    config.fine.epochs = 25
    config.fine.lr = 8e-4
    config.fine.jitter = 8  # largest shift of the true windows, in pixels

    # Joint training. A patch and its labels are cropped by the same window, so the fine loss alone
    # does not bind a window to its part: the losses of coarse network and localizer remain, and
    # both networks have low rates after a warm-up. The weights are large since the fine loss's
    # gradient with respect to theta is thousands of times the localizer loss's. The paper's form:
    # both weights and warmup_epochs 0.
    config.joint = ConfigDict()
    config.joint.epochs = 25
    config.joint.lr_coarse = 5e-5  # 0 freezes a network
    config.joint.lr_localizer = 5e-5
    config.joint.lr_fine = 8e-4
    config.joint.warmup_epochs = 1.0  # of coarse network and localizer
    config.joint.coarse_weight = 1000.0
    config.joint.localizer_weight = 10000.0

    # Self-distillation (Han and Yoon, 2024), if `stages` ends with "distill": joint training
    # continues, and the networks, which receive augmented faces, also learn the predictions of a
    # moving average of their weights for the faces before photometric augmentation. The average is
    # evaluated and saved.
    config.distill = ConfigDict()
    config.distill.epochs = 5
    config.distill.lr_coarse = 2e-5
    config.distill.lr_localizer = 2e-5
    config.distill.lr_fine = 2e-4
    config.distill.weight = 1.0  # of the teacher's predictions, relative to the labels
    config.distill.decay = 0.998  # of the moving average, at each step

    # Structure via consensus (Masi et al., 2020): a loss on the regions of labels.
    config.consensus = ConfigDict()
    config.consensus.coarse = 0.0  # weight in the coarse network's loss; 0: off
    config.consensus.fine = 0.0  # weight in the fine networks' loss; 0: off
    config.consensus.regions = "labels"  # or connected: each connected region of a label
    config.consensus.warmup_epochs = 0.0  # of each stage, over which the weights rise from 0

    # Edges between labels (Han and Yoon, 2024).
    config.edges = ConfigDict()
    config.edges.coarse = 0.0  # added weight of pixels near an edge in the coarse network's loss
    config.edges.fine = 0.0  # the same in the fine networks' loss
    config.edges.task = 0.0  # weight of the edge task, which needs model.edge_head = True

    # Steps between checkpoints, in addition to those after each epoch; 0: only those. The latest
    # two and the best are stored.
    config.checkpoint_every_steps = 500
    config.validation_images = 4  # validation faces that are drawn after each epoch
    return config
