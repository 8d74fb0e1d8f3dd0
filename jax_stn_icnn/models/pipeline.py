"""STN-iCNN: coarse network, localizer, sampler, fine networks and inverse sampler in one module.

    frame -> coarse image -> coarse segmentation -> theta -> patches -> fine networks -> label map

Section 2.1 and figure 1b of the paper. Each stage can be called alone, by `method=`.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct, traverse_util

from jax_stn_icnn import ops
from jax_stn_icnn.checks import check_shape
from jax_stn_icnn.compilation.cache import cached_program, cached_value
from jax_stn_icnn.compilation.compile import compile_unoptimized
from jax_stn_icnn.compilation.inlining import not_inlined
from jax_stn_icnn.geometry import Size, compose_theta, invert_theta
from jax_stn_icnn.models.bridge import Context, context_size
from jax_stn_icnn.models.coarse import CoarseNetwork, CoarseOutput
from jax_stn_icnn.models.config import CENTROID, ENCODER, ModelConfig
from jax_stn_icnn.models.encoder_network import EncoderNetwork
from jax_stn_icnn.models.fine import FineNetworks, PartLoss
from jax_stn_icnn.models.flip_test import average_global_logits, with_mirror_images
from jax_stn_icnn.models.icnn import ICNN
from jax_stn_icnn.models.localizer import LOCALIZERS, centroid_theta, localizer_input
from jax_stn_icnn.models.outlining import outlined
from jax_stn_icnn.models.unet import UNet
from jax_stn_icnn.models.wide import blend
from jax_stn_icnn.ops.platform import current_implementations

# Those of the full face.
COARSE_NETWORKS: dict[str, type[CoarseNetwork]] = {"unet": UNet, ENCODER: EncoderNetwork}


@struct.dataclass
class STNiCNNOutput:
    """The output of the model: the scores, and every intermediate by name.

    Attributes:
        coarse_logits: (batch, coarse_size, coarse_size, classes).
        global_logits: Logits of the global classes at the size of the coarse image, channels first,
            (batch, global classes, height, width); None if background is the only one.
        coarse_probs: Softmax of the coarse logits, the coarse segmentation.
        theta: The windows, patch -> frame, (batch, parts, 2, 3).
        patches: The crops, for each part (batch, *size, 3).
        fine_logits: For each part (batch, *size, labels of the part).
        scores: Scores of the classes in the frame, (batch, height, width, classes).
        wide_probs: Probabilities of the global classes in the wide frame, channels first, (batch,
            global classes, *coarse_image_size); None without a wide frame.
    """

    coarse_logits: jax.Array
    global_logits: jax.Array | None
    coarse_probs: jax.Array
    theta: jax.Array
    patches: tuple[jax.Array, ...]
    fine_logits: tuple[jax.Array, ...]
    scores: jax.Array
    wide_probs: jax.Array | None = None

    @property
    def labels(self) -> jax.Array:
        """The label map: class ids, uint8 (batch, height, width)."""
        # Class by class: XLA does not vectorize an argmax reduction on CPUs.
        highest = self.scores[..., 0]
        label_map = jnp.zeros(highest.shape, jnp.uint8)
        for i in range(1, self.scores.shape[-1]):
            score = self.scores[..., i]
            label_map = jnp.where(score > highest, jnp.uint8(i), label_map)
            highest = jnp.maximum(highest, score)
        return label_map


class STNiCNN(nn.Module):
    """The face parser.

    Attributes:
        config: Its options.
        axis_name: Name of a mapped axis over which batch statistics are averaged.
    """

    config: ModelConfig = ModelConfig()
    axis_name: str | None = None

    def setup(self) -> None:
        """Makes the networks; Flax calls it."""
        config = self.config
        if config.coarse_network != "icnn":
            self.coarse: nn.Module = COARSE_NETWORKS[config.coarse_network](config, self.axis_name)
        else:
            self.coarse = ICNN(
                config.anatomy.num_classes,
                config.coarse_channels,
                config.interlinks,
                self.axis_name,
                jnp.dtype(config.dtype),
            )
        if config.cropper != CENTROID:
            self.localizer = LOCALIZERS[config.cropper](config, self.axis_name)
        self.fine = FineNetworks(config, self.axis_name)

    def __call__(
        self,
        frame: jax.Array,
        region: jax.Array | None = None,
        *,
        wide_frame: jax.Array | None = None,
        train: bool = False,
    ) -> STNiCNNOutput:
        """Parses frames.

        Args:
            frame: Images of faces, uint8 or floats in 0..1, (batch, height, width, 3).
            region: Thetas of the picture's rectangle in the frame, (batch, 2, 3), if padding
                surrounds the picture.
            wide_frame: The faces' wide frames at the size of the coarse image, uint8 or floats in
                0..1, (batch, *coarse_image_size, 3); not with a region.
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            The scores, the label map, and every intermediate by name.

        Raises:
            ValueError: Shapes do not match, or a wide frame is given although there is a region, or
                background is the only global class.
        """
        frame = ops.to_float(frame)
        if not train and current_implementations().space_to_depth:
            # A TPU samples by products, which take several times as long in float32.
            frame = frame.astype(self.config.dtype)
        image = ops.coarse_image(frame, region, self.config.coarse_image_size)
        wide_probs = None
        if wide_frame is None:
            coarse = self.coarse_stage(image, train=train)
        else:
            if region is not None or len(self.config.anatomy.global_ids) == 1:
                raise ValueError(
                    "wide_frame is given, but needs frames without a region, and global classes "
                    "besides background"
                )
            check_shape("wide_frame", wide_frame, image.shape)
            # One call, so that the coarse network is compiled once. Each frame is followed by its
            # wide frame: otherwise a batch sharded over devices would have to be exchanged.
            images = jnp.stack([image, ops.to_float(wide_frame).astype(image.dtype)], axis=1)
            both = self.coarse_stage(images.reshape(-1, *image.shape[1:]), train=train)
            coarse, wide = (
                jax.tree.map(lambda x, i=i: x.reshape(-1, 2, *x.shape[1:])[:, i], both)
                for i in (0, 1)
            )
            wide_probs = _channels_first_softmax(wide.global_logits)
        coarse_probs = nn.softmax(coarse.logits)
        theta = self.localize(coarse_probs, frame.shape[1:3], region, train=train)
        patches, fine_logits = self.fine_stage(frame, theta, coarse, region, train=train)
        scores = self.merge(
            fine_logits, theta, coarse.global_logits, frame.shape[1:3], region, wide_probs
        )
        return STNiCNNOutput(
            coarse.logits,
            coarse.global_logits,
            coarse_probs,
            theta,
            patches,
            fine_logits,
            scores,
            wide_probs,
        )

    def coarse_stage(self, coarse_image: jax.Array, *, train: bool = False) -> CoarseOutput:
        """Returns the output of the coarse network.

        Args:
            coarse_image: Floats in 0..1, (batch, *coarse_image_size, 3), as `ops.coarse_image`
                returns them.
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Raises:
            ValueError: The shape does not match.
        """
        size = self.config.coarse_image_size
        check_shape("coarse_image", coarse_image, ("batch", *size, 3))
        run = functools.partial(STNiCNN._coarse_output, train=train)
        return outlined(run, self, coarse_image, train=train)

    def _coarse_output(self, coarse_image: jax.Array, train: bool) -> CoarseOutput:
        anatomy = self.config.anatomy
        flip = self.config.flip_test and not train
        output = self.coarse(with_mirror_images(coarse_image) if flip else coarse_image, train)
        if self.config.coarse_network == "icnn":
            global_logits = jnp.stack([output[..., i] for i in anatomy.global_ids], axis=1)
            output = CoarseOutput(output, global_logits, None, None)
        if flip:
            output = average_global_logits(output, anatomy)
        return output if len(anatomy.global_ids) > 1 else output._replace(global_logits=None)

    def extend(self, wide_probs: jax.Array, far_frame: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the probabilities of the global classes in wide frames, blended, and in far ones.

        Args:
            wide_probs: Those predicted in the wide frames, as in `STNiCNNOutput`.
            far_frame: The far frames, floats in 0..1, (batch, *coarse_image_size, 3).

        Returns:
            Two arrays of the shape of `wide_probs`; along the edges, the first has the second's
            values.
        """
        global_logits = self.coarse_stage(far_frame).global_logits
        assert global_logits is not None
        far_probs = _channels_first_softmax(global_logits)
        return blend(wide_probs, far_probs, self.config.coarse_image_size), far_probs

    def localize(
        self,
        coarse_probs: jax.Array,
        frame_size: Size,
        region: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """Returns the windows of a coarse segmentation.

        Args:
            coarse_probs: Softmax over the classes, (batch, coarse_size, coarse_size, classes).
            frame_size: (height, width) of the frame; for `centroid` only.
            region: Thetas of the picture's rectangle in the frame, (batch, 2, 3); None if the
                picture fills the frame. For `centroid` only: a localizer learns it.
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            Thetas patch -> frame, (batch, parts, 2, 3).

        Raises:
            ValueError: The shape does not match.
        """
        config = self.config
        if config.cropper != CENTROID:
            return self.localizer(localizer_input(coarse_probs, config.anatomy), train)
        if region is None:
            region = jnp.broadcast_to(jnp.array(ops.IDENTITY), (coarse_probs.shape[0], 2, 3))
        return centroid_theta(coarse_probs, region, frame_size, config.patch_sizes, config.anatomy)

    def fine_stage(
        self,
        frame: jax.Array,
        theta: jax.Array,
        coarse: CoarseOutput | None = None,
        region: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """Returns the patches of windows, and the logits of the fine networks.

        Args:
            frame: Floats in 0..1, (batch, height, width, 3).
            theta: The windows, (batch, parts, 2, 3).
            coarse: Output of the coarse network; a model with a bridge needs it.
            region: Thetas of the picture's rectangle in the frame, (batch, 2, 3), if padding
                surrounds the picture.
            train: Whether BatchNorm uses, and records, the statistics of this batch.

        Returns:
            For each part its patches, and its logits.

        Raises:
            ValueError: Shapes do not match, or `coarse` is missing.
        """
        patches, contexts = self._fine_inputs(frame, theta, coarse, region)
        return patches, self.fine(patches, train, contexts)

    def fine_loss(
        self,
        frame: jax.Array,
        theta: jax.Array,
        part_loss: PartLoss,
        targets: Sequence[Any],
        coarse: CoarseOutput | None = None,
        region: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the sum of the parts' losses in training.

        Args:
            frame: As for `fine_stage`.
            theta: As for `fine_stage`.
            part_loss: Function of a part's index, its logits and its target; returns a scalar.
            targets: For each part a tree of arrays, without a gradient.
            coarse: As for `fine_stage`.
            region: As for `fine_stage`.

        Raises:
            ValueError: As for `fine_stage`.
        """
        patches, contexts = self._fine_inputs(frame, theta, coarse, region)
        return self.fine.loss(patches, part_loss, targets, contexts)

    def _fine_inputs(
        self,
        frame: jax.Array,
        theta: jax.Array,
        coarse: CoarseOutput | None,
        region: jax.Array | None,
    ) -> tuple[tuple[jax.Array, ...], tuple[Context, ...] | None]:
        """Returns the patches of windows, and their contexts if there is a bridge."""
        config = self.config
        check_shape("frame", frame, ("batch", "height", "width", 3))
        check_shape("theta", theta, ("batch", config.anatomy.num_parts, 2, 3))
        patches = ops.crop_parts(frame, theta, config.patch_sizes, axis_aligned=True)
        if not config.bridge:
            return patches, None
        if coarse is None:
            raise ValueError("coarse is None, but a model with a bridge needs it")
        return patches, self._contexts(coarse, theta, region)

    def _contexts(
        self, coarse: CoarseOutput, theta: jax.Array, region: jax.Array | None
    ) -> tuple[Context, ...]:
        """Returns the coarse network's output for each part's window, and for the face."""
        assert coarse.features is not None
        probs = jnp.moveaxis(nn.softmax(coarse.logits), -1, 1)
        features = jnp.concatenate([probs, coarse.features.astype(jnp.float32)], axis=1)
        face = jnp.mean(features, axis=(2, 3))
        if region is not None:
            theta = compose_theta(invert_theta(region)[:, None], theta)
        rows = len(self.config.fine_channels)
        sizes = tuple(context_size(size, rows) for size in self.config.patch_sizes)
        windows = ops.crop_parts(jnp.moveaxis(features, 1, -1), theta, sizes, axis_aligned=True)
        return tuple(Context(jnp.moveaxis(window, -1, 1), face) for window in windows)

    def merge(
        self,
        fine_logits: Sequence[jax.Array],
        theta: jax.Array,
        global_logits: jax.Array | None,
        frame_size: Size,
        region: jax.Array | None = None,
        wide_probs: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the scores of all classes in the frame, merged from parts and global classes.

        Args:
            fine_logits: For each part (batch, *size, labels of the part).
            theta: The windows, (batch, parts, 2, 3).
            global_logits: As in `STNiCNNOutput`.
            frame_size: (height, width) of the frame.
            region: Thetas of the picture's rectangle in the frame, (batch, 2, 3), if padding
                surrounds the picture.
            wide_probs: As in `STNiCNNOutput`.

        Returns:
            Scores of the classes, (batch, *frame_size, classes).

        Raises:
            ValueError: Shapes do not match.
        """
        anatomy = self.config.anatomy
        on_tpu = current_implementations().space_to_depth

        def narrow(probs: jax.Array) -> jax.Array:
            # As for the frame in `__call__`.
            return probs.astype(self.config.dtype) if on_tpu else probs

        global_probs = None
        if global_logits is not None:

            def blended(logits: jax.Array, wide_probs: jax.Array | None) -> jax.Array:
                # Softmax first, since the frame has several times as many pixels.
                probs = narrow(_channels_first_softmax(logits))
                return probs if wide_probs is None else blend(probs, narrow(wide_probs), frame_size)

            # A function of its own: on a CPU, XLA would fuse it with the enlargement and repeat it
            # for each pixel of the frame.
            global_probs = not_inlined(blended)(global_logits, wide_probs)
            if on_tpu:
                global_probs = ops.with_part_classes(
                    global_probs, anatomy.global_ids, anatomy.num_classes
                )
            global_probs = _in_frame(global_probs, frame_size, region)
        scores = [narrow(nn.softmax(logits)) for logits in fine_logits]
        return ops.paste(scores, theta, frame_size, anatomy, global_probs, axis_aligned=True)


def _channels_first_softmax(logits: jax.Array) -> jax.Array:
    """Returns the softmax over axis 1; `nn.softmax` takes six times as long on a CPU."""
    planes = [logits[:, i] for i in range(logits.shape[1])]
    highest = jax.lax.stop_gradient(functools.reduce(jnp.maximum, planes))
    planes = [jnp.exp(plane - highest) for plane in planes]
    total = functools.reduce(jnp.add, planes)
    if current_implementations().space_to_depth:
        # A TPU computes exponentials twice in less time than it stacks planes.
        return jnp.exp(logits - (highest + jnp.log(total))[:, None])
    return jnp.stack(planes, axis=1) / total[:, None]


def _in_frame(probs: jax.Array, frame_size: Size, region: jax.Array | None) -> jax.Array:
    """Returns a picture's global probabilities at the pixels of its frame, sampled bilinearly.

    Args:
        probs: Channels first, (batch, global classes, height, width), background first.
        frame_size: (height, width) of the frame.
        region: Thetas of the picture's rectangle in the frame, (batch, 2, 3); around it all is
            background.

    Returns:
        (batch, *frame_size, global classes).
    """
    pixels = jnp.moveaxis(probs, 1, -1)
    if region is None:
        return ops.upsample_bilinear(pixels, frame_size)

    def sample() -> jax.Array:
        inside = ops.crop_bilinear(pixels, invert_theta(region), frame_size, axis_aligned=True)
        return inside.at[..., 0].add(1 - jnp.sum(inside, axis=-1))

    if pixels.shape[1:3] != tuple(frame_size):
        return sample()
    # A picture that fills its frame, as most do, needs no sampling.
    fills = jnp.all(region == jnp.array(ops.IDENTITY))
    return jax.lax.cond(fills, lambda: pixels, sample)


def init_variables(model: STNiCNN, seed: int) -> dict[str, Any]:
    """Returns a model's initial variables, by Flax's initializers, in one compiled program.

    Args:
        model: The model.
        seed: Seed of the parameters.

    Returns:
        `{"params": ..., "batch_stats": ...}`.
    """

    @jax.jit
    def init(seed: jax.Array) -> dict[str, Any]:
        return dict(model.init(jax.random.key(seed), method=call_every_network))

    program = cached_program(
        "initial variables",
        (model,),
        lambda: init.lower(np.uint32(0)),
        # Each parameter has a random generator of its own, whose code runs once.
        compile_unoptimized,
        jax.local_devices()[:1],
    )
    return jax.device_get(program(np.uint32(seed)))


# Shapes and types of the variables of the models of this process.
_known_shapes: dict[STNiCNN, dict[str, Any]] = {}


def remember_shapes(model: STNiCNN, variables: Mapping[str, Any]) -> None:
    """Tells `variable_shapes` the shapes of a model, which it otherwise takes seconds to compute.

    Args:
        model: The model.
        variables: Variables that certainly are those of the model.
    """
    _known_shapes[model] = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), dict(variables)
    )


def variable_shapes(model: STNiCNN) -> dict[str, Any]:
    """Returns the shapes and types of a model's variables, without computing them.

    Args:
        model: The model.

    Returns:
        `{"params": ..., "batch_stats": ...}` of `jax.ShapeDtypeStruct`.
    """
    if model in _known_shapes:
        return _known_shapes[model]

    def shapes() -> dict[str, Any]:
        init = functools.partial(model.init, method=call_every_network)
        found = traverse_util.flatten_dict(dict(jax.eval_shape(init, jax.random.key(0))), sep="/")
        return {name: [leaf.shape, leaf.dtype.name] for name, leaf in found.items()}

    found = cached_value("shapes of variables", (model,), shapes)
    leaves = {name: jax.ShapeDtypeStruct(*shape_and_type) for name, shape_and_type in found.items()}
    _known_shapes[model] = traverse_util.unflatten_dict(leaves, sep="/")
    return _known_shapes[model]


def call_every_network(model: STNiCNN) -> None:
    """Calls the networks on inputs of the right shapes, without sampling and merging."""
    config = model.config
    coarse = model.coarse_stage(jnp.zeros((1, *config.coarse_image_size, 3)))
    theta = jnp.zeros((1, config.anatomy.num_parts, 2, 3))
    if config.cropper != CENTROID:
        model.localize(nn.softmax(coarse.logits), config.coarse_image_size)
    contexts = model._contexts(coarse, theta, None) if config.bridge else None
    patches = tuple(jnp.zeros((1, *size, 3)) for size in config.patch_sizes)
    model.fine(patches, False, contexts)
