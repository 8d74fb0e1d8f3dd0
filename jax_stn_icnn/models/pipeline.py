"""STN-iCNN: coarse network, localizer, sampler, fine networks and inverse sampler in one module.

    coarse image -> coarse -> rough mask -> localizer -> theta -> crop -> fine -> paste -> parse

Section 2.1 and figure 1b of the paper. Each stage can be called alone, by `method=`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from jax_stn_icnn import ops
from jax_stn_icnn.anatomy import NINE, Anatomy
from jax_stn_icnn.checks import check_same_batch, check_shape
from jax_stn_icnn.compilation.cache import cached_value
from jax_stn_icnn.geometry import COARSE_SIZE, Size, Sizes, compose, invert, part_sizes
from jax_stn_icnn.models.bridge import Context, context_size
from jax_stn_icnn.models.fine import FineNetworks, Patches
from jax_stn_icnn.models.flip_test import averaged, with_mirror_images
from jax_stn_icnn.models.icnn import CHANNELS, ICNN, INTERLINKS
from jax_stn_icnn.models.localizer import LOCALIZERS, centroid_theta
from jax_stn_icnn.models.outlining import outlined
from jax_stn_icnn.models.unet import CoarseOutput, UNet

CENTROID = "centroid"
COARSE_NETWORKS = ("icnn", "unet")


@struct.dataclass
class Parse:
    """Everything that the pipeline computes on its way, and the parse.

    Attributes:
        coarse_logits: (batch, 128, 128, classes).
        global_logits: those of the classes without a window, at the size of the coarse image,
            channels first, (batch, global_ids, height, width); None where background is the only
            one.
        mask: softmax of the coarse logits, the rough mask.
        theta: the windows, patch -> frame, (batch, parts, 2, 3).
        patches: what they cut, (batch, parts, *patch_size, 3); of several sizes, for each part
            (batch, *size, 3).
        fine_logits: for each part (batch, *size, labels of the part).
        scores: the classes' scores in the frame, (batch, height, width, classes).
    """

    coarse_logits: jax.Array
    global_logits: jax.Array | None
    mask: jax.Array
    theta: jax.Array
    patches: Patches
    fine_logits: tuple[jax.Array, ...]
    scores: jax.Array

    @property
    def labels(self) -> jax.Array:
        """The parse: class ids, uint8 (batch, height, width)."""
        # Class by class: as a reduction, `argmax` is not vectorised on CPU.
        highest = self.scores[..., 0]
        found = jnp.zeros(highest.shape, jnp.uint8)
        for i in range(1, self.scores.shape[-1]):
            score = self.scores[..., i]
            found = jnp.where(score > highest, jnp.uint8(i), found)
            highest = jnp.maximum(highest, score)
        return found


class STNiCNN(nn.Module):
    """The whole parser.

    Attributes:
        patch_size: (height, width) of the patches, or one for each part; odd, so that windows fall
            on whole pixels: 81 for HELEN, 127 for CelebAMask-HQ.
        cropper: `vgg9`, `small` or `resnet18`, or `centroid`, the baseline without a localizer.
        anatomy: what a face consists of; the paper's nine classes by default.
        coarse_network: `icnn`, the paper's, or `unet`, which sees the whole picture.
        coarse_channels: of the coarse network's rows; the paper's four by default.
        coarse_stride: sides of the coarse image over those of the rough mask. 1 is the paper's; above it
            what has no window is scored at the coarse image's size, by a `unet` only.
        fine_channels: of the fine networks' rows; the paper's four by default.
        interlinks: how often the rows of an interlinked network exchange their features; the
            paper's three times by default.
        following: whether true windows follow their parts (`geometry.theta_target`). The networks
            are the same; what the localizer is to say differs.
        axis_name: name of a mapped axis over which batch statistics are averaged.
        dtype: type of the networks' computation; parameters and coordinates stay float32.
        attention: how many of a `unet`'s lowest rows have self-attention.
        edges: whether a `unet` says where edges are, too: a task for training, which the parse
            does without.
        flip_test: whether the classes without a window, except in training, get the mean of the
            coarse network's logits of a picture and of its mirror image.
        bridge: whether the fine networks see what a `unet` makes of their windows and of the face.
        coarse_size: side of the rough mask, in pixels; the paper's 128, and where a shape in this
            file says 128, that stands for it.
        platform: what the networks are compiled for, as JAX calls it (`tpu`, `cpu`, ..); None is
            JAX's default. It changes how results are computed, not what they are; so only who
            compiles for a platform that is not at hand has to say it.
    """

    patch_size: Sizes
    cropper: str = "vgg9"
    anatomy: Anatomy = NINE
    coarse_network: str = "icnn"
    coarse_channels: tuple[int, ...] = CHANNELS
    coarse_stride: int = 1
    fine_channels: tuple[int, ...] = CHANNELS
    interlinks: int = INTERLINKS
    following: bool = False
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    attention: int = 0
    edges: bool = False
    bridge: bool = False
    flip_test: bool = False
    coarse_size: int = COARSE_SIZE[0]
    platform: str | None = None

    @property
    def coarse_image_size(self) -> Size:
        """(height, width) of the coarse image."""
        return (self.coarse_size * self.coarse_stride,) * 2

    @property
    def patch_sizes(self) -> tuple[Size, ...]:
        """(height, width) of each part's patch."""
        return part_sizes(self.patch_size, self.anatomy.num_parts)

    def setup(self) -> None:
        """Makes the networks; Flax calls it."""
        how: dict[str, Any] = {"axis_name": self.axis_name, "dtype": self.dtype}
        folding: dict[str, Any] = {"platform": self.platform}
        coarse: dict[str, Any] = {
            "num_labels": self.anatomy.num_classes,
            "channels": self.coarse_channels,
        }
        plain = self.coarse_stride == 1 and not (self.attention or self.edges or self.bridge)
        if self.coarse_network == "unet":
            global_ids = self.anatomy.global_ids
            self.coarse: nn.Module = UNet(
                **coarse,
                global_ids=global_ids,
                coarse_stride=self.coarse_stride,
                attention=self.attention,
                edges=self.edges,
                bridge=self.bridge,
                **how,
                **folding,
            )
        elif self.coarse_network == "icnn" and plain:
            self.coarse = ICNN(**coarse, interlinks=self.interlinks, **how, **folding)
        else:
            raise ValueError(
                f"coarse_network is {self.coarse_network!r} with coarse_stride {self.coarse_stride}, attention "
                f"{self.attention}, edges {self.edges} and bridge {self.bridge}, but must be one "
                f"of {', '.join(COARSE_NETWORKS)}, and only a unet has a coarse_stride above 1, "
                "attention, edges or a bridge"
            )
        if self.cropper != CENTROID:
            if self.cropper not in LOCALIZERS:
                known = ", ".join([*LOCALIZERS, CENTROID])
                raise ValueError(f"cropper is {self.cropper!r}, but must be one of {known}")
            # Of the others, one works on few pixels and one on many channels from the start.
            own = folding if self.cropper == "vgg9" else {}
            self.localizer = LOCALIZERS[self.cropper](anatomy=self.anatomy, **how, **own)
        self.fine = FineNetworks(
            self.anatomy, self.fine_channels, self.interlinks, self.bridge, **how, **folding
        )

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
            coarse_image: the picture resized by `ops.resize_bilinear`, floats in 0..1,
                (batch, *coarse_image_size, 3).
            frame: the picture from which the parts are cut, (batch, height, width, 3).
            region: where in the frame the picture lies, (batch, 2, 3), if padding surrounds it.
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            A `Parse`, with every intermediate by name.

        Raises:
            ValueError: shapes do not fit.
        """
        check_same_batch(coarse_image=coarse_image, frame=frame)
        coarse = self.coarse_stage(coarse_image, train=train)
        mask = nn.softmax(coarse.all)
        if self.cropper == CENTROID:
            identity = jnp.broadcast_to(jnp.array(ops.IDENTITY), (frame.shape[0], 2, 3))
            theta = centroid_theta(
                mask,
                identity if region is None else region,
                frame.shape[1:3],
                self.patch_size,
                self.anatomy,
            )
        else:
            theta = self.localize(mask, train=train)
        patches, fine_logits = self.fine_stage(frame, theta, coarse, region, train=train)
        scores = self.join(fine_logits, theta, coarse.whole, frame.shape[1:3], region)
        return Parse(coarse.all, coarse.whole, mask, theta, patches, fine_logits, scores)

    def coarse_stage(self, coarse_image: jax.Array, *, train: bool = False) -> CoarseOutput:
        """Parses coarse images.

        Args:
            coarse_image: (batch, *coarse_image_size, 3).
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            The logits.
        """
        check_shape("coarse_image", coarse_image, ("batch", *self.coarse_image_size, 3))
        parse = functools.partial(STNiCNN._coarse_logits, train=train)
        return outlined(parse, self, coarse_image, train=train)

    def _coarse_logits(self, coarse_image: jax.Array, train: bool) -> CoarseOutput:
        global_ids = self.anatomy.global_ids
        flip = self.flip_test and not train
        found = self.coarse(with_mirror_images(coarse_image) if flip else coarse_image, train)
        if self.coarse_network != "unet":
            whole = jnp.stack([found[..., i] for i in global_ids], axis=1)
            found = CoarseOutput(found, whole, None, None)
        if flip:
            found = averaged(found, self.anatomy)
        return found if len(global_ids) > 1 else found._replace(whole=None)

    def localize(self, mask: jax.Array, *, train: bool = False) -> jax.Array:
        """Thetas of rough masks, by the localizer; `centroid` has none.

        Args:
            mask: softmax over the classes, (batch, 128, 128, classes).
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            The windows, patch -> frame, (batch, parts, 2, 3).

        Raises:
            ValueError: the shape does not fit.
        """
        return self.localizer(localizer_input(mask, self.anatomy), train)

    def fine_stage(
        self,
        frame: jax.Array,
        theta: jax.Array,
        coarse: CoarseOutput | None = None,
        region: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[Patches, tuple[jax.Array, ...]]:
        """Parses what windows cut.

        Args:
            frame: the picture, (batch, height, width, 3).
            theta: the windows, (batch, parts, 2, 3).
            coarse: what the coarse network says of the picture; a model with a bridge needs it.
            region: where in the frame the picture lies, (batch, 2, 3), if padding surrounds it.
            train: whether BatchNorm uses (and records) the statistics of this batch.

        Returns:
            The patches, and for each part its logits.

        Raises:
            ValueError: shapes do not fit, or the bridge lacks what it needs.
        """
        check_shape("frame", frame, ("batch", "height", "width", 3))
        check_shape("theta", theta, ("batch", self.anatomy.num_parts, 2, 3))
        patches = ops.crop_parts(frame, theta, self.patch_size, axis_aligned=True)
        if not self.bridge:
            return patches, self.fine(patches, train)
        if coarse is None:
            raise ValueError("coarse is None, but a model with a bridge needs it")
        return patches, self.fine(patches, train, self._contexts(coarse, theta, region))

    def _contexts(
        self, coarse: CoarseOutput, theta: jax.Array, region: jax.Array | None
    ) -> tuple[Context, ...]:
        """What the coarse network makes of each part's window, and of the face."""
        assert coarse.features is not None
        scores = jnp.moveaxis(nn.softmax(coarse.all), -1, 1)
        seen = jnp.concatenate([scores, coarse.features.astype(jnp.float32)], axis=1)
        face = jnp.mean(seen, axis=(2, 3))
        if region is not None:
            theta = compose(invert(region)[:, None], theta)
        sizes = tuple(context_size(size, len(self.fine_channels)) for size in self.patch_sizes)
        windows = ops.crop_parts(jnp.moveaxis(seen, 1, -1), theta, sizes, axis_aligned=True)
        return tuple(Context(jnp.moveaxis(window, -1, 1), face) for window in windows)

    def join(
        self,
        fine_logits: tuple[jax.Array, ...],
        theta: jax.Array,
        global_logits: jax.Array | None,
        frame_size: Size,
        region: jax.Array | None = None,
    ) -> jax.Array:
        """Puts parts and whole together.

        Args:
            fine_logits: for each part (batch, *size, labels of the part).
            theta: the windows, (batch, parts, 2, 3).
            global_logits: as in `Parse`.
            frame_size: (height, width) of the frame.
            region: where in the frame the picture lies, (batch, 2, 3), if padding surrounds it.

        Returns:
            Scores of the classes, (batch, *frame_size, classes).
        """
        whole = None
        if global_logits is not None:
            # Softmax first: the frame has several times as many pixels, and of those it is slow.
            whole = _in_frame(_distribution(global_logits), frame_size, region)
        scores = [nn.softmax(logits) for logits in fine_logits]
        return ops.paste(scores, theta, frame_size, self.anatomy, whole, axis_aligned=True)


def localizer_input(mask: jax.Array, anatomy: Anatomy) -> jax.Array:
    """What a localizer sees: the rough mask, with all that has no window as one background.

    So one localizer serves all classes that share their parts, and the paper's sees just what it
    does there.

    Args:
        mask: softmax over the classes, (batch, height, width, classes).
        anatomy: what the classes are.

    Returns:
        Background and the parts' classes, (batch, height, width, 1 + part_class_ids classes).
    """
    if len(anatomy.global_ids) == 1:
        return mask
    # A product: indexed by arrays, a TPU would look the classes up one by one.
    seen = np.zeros((anatomy.num_classes, 1 + len(anatomy.part_class_ids)), np.float32)
    seen[list(anatomy.global_ids), 0] = 1
    seen[list(anatomy.part_class_ids), np.arange(len(anatomy.part_class_ids)) + 1] = 1
    return jnp.einsum("bhwc,cp->bhwp", mask, seen, precision="highest")


def _distribution(logits: jax.Array) -> jax.Array:
    """Softmax over channels that come first; `nn.softmax` takes six times as long on CPU."""
    planes = [logits[:, i] for i in range(logits.shape[1])]
    highest = jax.lax.stop_gradient(functools.reduce(jnp.maximum, planes))
    planes = [jnp.exp(plane - highest) for plane in planes]
    return jnp.stack(planes, axis=1) / functools.reduce(jnp.add, planes)[:, None]


def _in_frame(whole: jax.Array, frame_size: Size, region: jax.Array | None) -> jax.Array:
    """A picture's distribution over classes in the pixels of its frame, by bilinear sampling.

    Args:
        whole: channels first, (batch, global_ids, height, width), background the first of them.
        frame_size: (height, width) of the frame.
        region: where in the frame the picture lies, (batch, 2, 3); around it there is background.

    Returns:
        (batch, *frame_size, global_ids).
    """
    pixels = jnp.moveaxis(whole, 1, -1)
    same_size = pixels.shape[1:3] == tuple(frame_size)
    if region is None:
        return pixels if same_size else ops.enlarge(pixels, frame_size)

    def sampled() -> jax.Array:
        inside = ops.crop_bilinear(pixels, invert(region), frame_size, axis_aligned=True)
        return inside.at[..., 0].add(1 - jnp.sum(inside, axis=-1))

    if not same_size:
        return sampled()
    # A picture that fills its frame, as most do, needs no look-up.
    fills = jnp.all(region == jnp.array(ops.IDENTITY))
    return jax.lax.cond(fills, lambda: pixels, sampled)


def variable_shapes(model: STNiCNN) -> dict[str, Any]:
    """The shapes and types of a parser's variables, with nothing computed.

    Args:
        model: the parser.

    Returns:
        `{"params": ..., "batch_stats": ...}` of `jax.ShapeDtypeStruct`.
    """

    def every_network(parser: STNiCNN) -> None:
        coarse = parser.coarse_stage(jnp.zeros((1, *parser.coarse_image_size, 3)))
        if parser.cropper != CENTROID:
            size = parser.coarse_size
            parser.localize(jnp.zeros((1, size, size, parser.anatomy.num_classes)))
        contexts = None
        if parser.bridge:
            theta = jnp.zeros((1, parser.anatomy.num_parts, 2, 3))
            contexts = parser._contexts(coarse, theta, None)
        parser.fine(tuple(jnp.zeros((1, *size, 3)) for size in parser.patch_sizes), False, contexts)

    def shapes() -> dict[str, Any]:
        # Only pictures' sizes differ between patch sizes, and no parameter's shape knows them.
        init = functools.partial(model.init, method=every_network)
        return dict(jax.eval_shape(init, jax.random.key(0)))

    return cached_value("shapes of variables", (model,), shapes)
