"""Every field of a config, with what the runs have in common. Other configs start from this one."""

from ml_collections import ConfigDict

from jax_stn_icnn.models.config import ModelConfig


def get_config() -> ConfigDict:
    """The fields and their defaults."""
    config = ConfigDict()
    config.seed = 0  # of parameters, order and augmentation

    config.dataset = ConfigDict()
    config.dataset.name = "synthetic_faces"  # or celebamask_hq, helen
    config.dataset.data_dir = "~/tensorflow_datasets"
    config.dataset.manual_dir = ""  # with the downloaded archive; empty: TFDS's default
    config.dataset.train = "train"  # splits in TFDS's words, such as train[:100]
    config.dataset.validation = "validation"
    config.dataset.test = "test"
    # Pictures without labels, for the stage `distill`: a prepared data set and a split of it, such
    # as celebamask_hq/train[100:], or a folder of photos, in which faces are found; empty: none.
    config.dataset.unlabelled = ""
    config.dataset.frame_size = 256  # side of the square that parts are cut from, in pixels
    config.dataset.num_workers = 0  # loader processes; 0 loads in two threads

    # Every option of `jax_stn_icnn.models.config.ModelConfig`, where each is documented. `anatomy`
    # is the name of the classes: nine, eleven, nineteen, or one that the config's file registers.
    config.model = ConfigDict(ModelConfig().to_dict() | {"anatomy": "nine"})

    # A run's directory or a .safetensors file to start from; empty: random parameters.
    config.init_from = ""
    config.init_networks = ("coarse", "localizer", "fine")  # what is taken from there
    config.batch_size = 32  # global: of all devices together
    config.eval_batch_size = 16
    config.augment = True  # rotation, shift, scale, noise
    config.mirror = False  # every second face, at random; sides exchange their classes
    # Towards photos as people take them; each at most so strong, for every second face, and 0 off.
    # Units are those of `Strengths` in jax_stn_icnn/data/photometric.py.
    config.photo = ConfigDict()
    config.photo.grayscale = 0.0  # share of the faces
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
    config.halve_every_epochs = 5.0  # all learning rates
    config.part_weights = (
        1.0,
    ) * 6  # of brow 1, brow 2, eye 1, eye 2, nose, mouth in the fine loss

    config.coarse = ConfigDict()
    config.coarse.epochs = 25
    config.coarse.lr = 2.3e-3
    config.coarse.loss = "cross_entropy"  # or binary_, as the paper writes it, or balanced_

    config.localizer = ConfigDict()
    config.localizer.epochs = 25
    config.localizer.lr = 1.7e-3

    config.fine = ConfigDict()
    config.fine.epochs = 25
    config.fine.lr = 8e-4
    config.fine.jitter = 8  # how far the true windows are moved at most, in pixels

    # Joint training. The patch's labels are cut by the same window as the patch, so the fine loss
    # alone does not hold a window to its part: the other two losses stay on, and the coarse network
    # and the localizer move slowly, after a warm-up. Their weights are large because the fine
    # loss's gradient at the thetas is thousands of times the localizer's own (docs/results.md). The
    # paper's plain form: both weights and warmup_epochs 0.
    config.joint = ConfigDict()
    config.joint.epochs = 25
    config.joint.lr_coarse = 5e-5  # a rate of 0 freezes a network
    config.joint.lr_localizer = 5e-5
    config.joint.lr_fine = 8e-4
    config.joint.warmup_epochs = 1.0  # of coarse network and localizer
    config.joint.coarse_weight = 1000.0
    config.joint.localizer_weight = 10000.0

    # Self-distillation (Han and Yoon), if `stages` ends with "distill": joint training goes on, and
    # the networks, which see the face made like a photo, are also to say what an average of their
    # own earlier weights says of the face as it is. The average is what is scored and kept.
    config.distill = ConfigDict()
    config.distill.epochs = 5
    config.distill.lr_coarse = 2e-5
    config.distill.lr_localizer = 2e-5
    config.distill.lr_fine = 2e-4
    config.distill.weight = 1.0  # of the average's answers beside that of the labels
    config.distill.decay = 0.998  # of the average, at each step

    # Structure via consensus (Masi et al.): regions are to be right as a whole, and to agree.
    config.consensus = ConfigDict()
    config.consensus.coarse = 0.0  # weight beside the coarse network's loss; 0 is off
    config.consensus.fine = 0.0  # weight beside the fine networks' losses
    config.consensus.regions = "labels"  # or connected: each connected region of a label
    config.consensus.alpha = 10.0  # of the regions' likelihood
    config.consensus.beta = 5.0  # of the disagreement within regions
    config.consensus.warmup_epochs = 0.0  # of each stage, over which the weights rise from 0

    # Edges between labels (Han and Yoon).
    config.edges = ConfigDict()
    config.edges.coarse = 0.0  # weight of pixels near an edge, in the coarse network's loss besides
    config.edges.fine = 0.0  # likewise in the fine networks' losses
    config.edges.within = 2  # pixels; how near that is
    config.edges.task = 0.0  # weight of a second task of a unet, to say where edges are

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 500  # besides the end of each epoch; 0: only there
    config.checkpoint.keep = 2  # of the last ones; the best one stays besides
    config.pictures = 4  # validation faces drawn after each epoch
    return config
