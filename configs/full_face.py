"""Changes that the configs of the full face have in common; not a config by itself.

    python train.py --config configs/synthetic.py

trains the first of these configs; its expected result is in its file.
"""

from ml_collections import ConfigDict


def apply(config: ConfigDict) -> ConfigDict:
    """Sets fitted windows, and a coarse network with a larger receptive field and finer output.

    Args:
        config: A config of the paper's model; it is changed.

    Returns:
        The same config.
    """
    config.model.windows = "fitted"
    config.model.coarse_network = "unet"
    config.model.coarse_channels = (32, 64, 96, 128)
    config.model.coarse_stride = 2
    config.mirror = True
    config.coarse.loss = "balanced_cross_entropy"
    return config


def augment_photos(config: ConfigDict) -> ConfigDict:
    """Sets the augmentation of training faces towards photos by amateurs (docs/results.md).

    Args:
        config: A config; it is changed.

    Returns:
        The same config.
    """
    config.photo.grayscale = 0.25
    config.photo.colour = 0.3
    config.photo.gamma = 0.5
    config.photo.contrast = 0.4
    config.photo.occlusion = 0.3
    config.photo.blur = 0.005
    config.photo.resolution = 2.0
    config.photo.noise = 0.05
    config.photo.jpeg = 2.0
    config.photo.rotation = 15.0
    config.photo.zoom = 0.15
    return config
