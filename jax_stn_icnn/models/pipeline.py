"""STN-iCNN: coarse network, localizer, sampler, fine networks and inverse sampler in one module.

    coarse image -> coarse -> rough mask -> localizer -> theta -> crop -> fine -> paste -> parse

Section 2.1 and figure 1b of the paper. Each stage can be called alone, by `method=`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jax_stn_icnn import anatomy, sampling
from jax_stn_icnn.checks import check_same_batch, check_shape
from jax_stn_icnn.compilation.cache import cached_value
from jax_stn_icnn.geometry import COARSE_SIZE, Size
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.localizer import LOCALIZERS, centroid_theta

CENTROID = "centroid"


@struct.dataclass
class Parse:
    """Everything that the pipeline computes on its way, and the parse.

    Attributes:
        coarse_logits: (batch, 128, 128, 9).
        mask: their softmax, the rough mask.
        theta: the six windows, patch -> frame, (batch, 6, 2, 3).
        patches: what they cut, (batch, 6, *patch_size, 3).
        fine_logits: for each part (batch, *patch_size, 2 or 4).
        scores: the nine classes' scores in the frame, (batch, height, width, 9).
    """

    coarse_logits: jax.Array
    mask: jax.Array
    theta: jax.Array
    patches: jax.Array
    fine_logits: tuple[jax.Array, ...]
    scores: jax.Array

    @property
    def labels(self) -> jax.Array:
        """The parse: class ids, uint8 (batch, height, width)."""
        return jnp.argmax(self.scores, axis=-1).astype(jnp.uint8)


class FineNetworks(nn.Module):
    """The four fine networks; brow 2 and eye 2 go mirrored through those of brow 1 and eye 1.

    Attributes:
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the computation; parameters, statistics and logits stay float32.
    """

    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, patches: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """Parses the patches.

        Args:
            patches: floats in 0..1, (batch, 6, height, width, 3).
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            For each part its logits, (batch, height, width, labels of the part).
        """
        check_shape("patches", patches, ("batch", anatomy.NUM_PARTS, "height", "width", 3))
        logits: dict[str, jax.Array] = {}
        for network, num_labels in anatomy.NETWORKS.items():
            own = [(i, part) for i, part in enumerate(anatomy.PARTS) if part.network == network]
            # Both sides in one batch, so that BatchNorm sees them together.
            batch = jnp.concatenate([_mirror(patches[:, i], part) for i, part in own])
            out = ICNN(num_labels, axis_name=self.axis_name, dtype=self.dtype, name=network)(
                batch, train
            )
            for (_, part), part_logits in zip(own, jnp.split(out, len(own)), strict=True):
                logits[part.name] = _mirror(part_logits, part)
        return tuple(logits[part.name] for part in anatomy.PARTS)


def _mirror(x: jax.Array, part: anatomy.Part) -> jax.Array:
    return x[:, :, ::-1] if part.mirrored else x


class STNiCNN(nn.Module):
    """The whole parser.

    Attributes:
        patch_size: (height, width) of the patches; odd, so that windows fall on whole pixels:
            81 for HELEN, 127 for CelebAMask-HQ.
        cropper: `vgg9`, `small` or `resnet18`, or `centroid`, the baseline without a localizer.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the networks' computation; parameters and coordinates stay float32.
    """

    patch_size: Size
    cropper: str = "vgg9"
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Makes the networks; Flax calls it."""
        self.coarse = ICNN(anatomy.NUM_CLASSES, axis_name=self.axis_name, dtype=self.dtype)
        if self.cropper != CENTROID:
            if self.cropper not in LOCALIZERS:
                known = ", ".join([*LOCALIZERS, CENTROID])
                raise ValueError(f"cropper is {self.cropper!r}, but must be one of {known}")
            self.localizer = LOCALIZERS[self.cropper](axis_name=self.axis_name, dtype=self.dtype)
        self.fine = FineNetworks(axis_name=self.axis_name, dtype=self.dtype)

    def __call__(
        self,
        coarse_image: jax.Array,
        frame: jax.Array,
        region: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> Parse:
        """Parses frames.

        Args:
            coarse_image: the picture resized by `sampling.resize_bilinear`, floats in 0..1,
                (batch, 128, 128, 3).
            frame: the picture from which the parts are cut, (batch, height, width, 3).
            region: where in the frame the picture lies, (batch, 2, 3), if padding surrounds it;
                only the centroid cropper asks.
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            A `Parse`, with every intermediate by name.

        Raises:
            ValueError: shapes do not fit.
        """
        check_same_batch(coarse_image=coarse_image, frame=frame)
        coarse_logits = self.coarse_stage(coarse_image, train=train)
        mask = nn.softmax(coarse_logits)
        if self.cropper == CENTROID:
            if region is None:
                region = jnp.broadcast_to(jnp.array(sampling.IDENTITY), (frame.shape[0], 2, 3))
            theta = centroid_theta(mask, region, frame.shape[1:3], self.patch_size)
        else:
            theta = self.localize(mask, train=train)
        patches, fine_logits = self.fine_stage(frame, theta, train=train)
        scores = sampling.paste(
            [nn.softmax(logits) for logits in fine_logits], theta, frame.shape[1:3]
        )
        return Parse(coarse_logits, mask, theta, patches, fine_logits, scores)

    def coarse_stage(self, coarse_image: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits (batch, 128, 128, 9) of coarse images (batch, 128, 128, 3)."""
        check_shape("coarse_image", coarse_image, ("batch", *COARSE_SIZE, 3))
        return self.coarse(coarse_image, train)

    def localize(self, mask: jax.Array, *, train: bool = False) -> jax.Array:
        """Thetas (batch, 6, 2, 3) of rough masks (batch, 128, 128, 9)."""
        return self.localizer(mask, train)

    def fine_stage(
        self, frame: jax.Array, theta: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Patches (batch, 6, *patch_size, 3) of frames cut by theta, and their logits."""
        check_shape("frame", frame, ("batch", "height", "width", 3))
        check_shape("theta", theta, ("batch", anatomy.NUM_PARTS, 2, 3))
        patches = sampling.crop_bilinear(frame, theta, self.patch_size)
        return patches, self.fine(patches, train)


def variable_shapes(model: STNiCNN) -> dict[str, Any]:
    """The shapes and types of a parser's variables, with nothing computed.

    Args:
        model: the parser.

    Returns:
        `{"params": ..., "batch_stats": ...}` of `jax.ShapeDtypeStruct`.
    """

    def every_network(parser: STNiCNN) -> None:
        mask = jnp.zeros((1, *COARSE_SIZE, anatomy.NUM_CLASSES))
        parser.coarse_stage(mask[..., :3])
        if parser.cropper != CENTROID:
            parser.localize(mask)
        parser.fine(jnp.zeros((1, anatomy.NUM_PARTS, *parser.patch_size, 3)), False)

    def shapes() -> dict[str, Any]:
        # Only pictures' sizes differ between patch sizes, and no parameter's shape knows them.
        init = functools.partial(model.init, method=every_network)
        return dict(jax.eval_shape(init, jax.random.key(0)))

    return cached_value("shapes of variables", (model,), shapes)
