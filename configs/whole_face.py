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
    config.model.detail = 2
    config.mirror = True
    config.coarse.loss = "balanced_cross_entropy"
    return config
