"""What the configs of the whole face have in common, over those of the paper's nine classes."""

from ml_collections import ConfigDict


def apply(config: ConfigDict) -> ConfigDict:
    """Windows that fit their parts, and a coarse network that sees more, and more finely.

    Args:
        config: of the paper's system; it is changed.

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


def as_people_photograph(config: ConfigDict) -> ConfigDict:
    """Training faces like those of photos as people take them: docs/results.md has what it gives.

    Args:
        config: it is changed.

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
