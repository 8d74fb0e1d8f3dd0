"""The coarse network of the full face whose encoder has weights trained on ImageNet."""

import jax

from jax_stn_icnn.models.coarse import CoarseNetwork
from jax_stn_icnn.models.efficientnet import EfficientNetLite0
from jax_stn_icnn.models.feature_pyramid import FeaturePyramid

LARGEST_STRIDE = 32


class EncoderNetwork(CoarseNetwork):
    """A coarse network whose features are those of EfficientNet-Lite0 and a pyramid."""

    def _features(self, image: jax.Array, blocks: jax.Array, train: bool) -> jax.Array:
        """Returns the features at stride 4, which are those of a block."""
        if any(length % LARGEST_STRIDE for length in image.shape[1:3]):
            raise ValueError(
                f"image has shape {image.shape}, but must be divisible by {LARGEST_STRIDE}"
            )
        encoder = EfficientNetLite0(self.axis_name, self.dtype, name="encoder")
        _, *features = encoder(image, train)
        return FeaturePyramid(self.axis_name, self.dtype, name="pyramid")(features, train)
