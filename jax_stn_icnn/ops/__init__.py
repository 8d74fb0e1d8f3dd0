"""Array operations: the differentiable sampler and its inverse, resizing, convolution.

Arrays in, arrays out; no parameters. All sampling is backward: each output pixel is computed from
its position in the input, and zero outside of it. `platform` selects the implementations.
"""

from jax_stn_icnn.ops.crop import (
    IDENTITY,
    affine_grid,
    crop_bilinear,
    crop_nearest,
    crop_part_labels,
    crop_parts,
)
from jax_stn_icnn.ops.paste import paste
from jax_stn_icnn.ops.paste_matmul import with_part_classes
from jax_stn_icnn.ops.resize import (
    coarse_image,
    coarse_labels,
    resize_bilinear,
    take_labels,
    to_float,
    upsample_bilinear,
)

__all__ = [
    "IDENTITY",
    "affine_grid",
    "coarse_image",
    "coarse_labels",
    "crop_bilinear",
    "crop_nearest",
    "crop_part_labels",
    "crop_parts",
    "paste",
    "resize_bilinear",
    "take_labels",
    "to_float",
    "upsample_bilinear",
    "with_part_classes",
]
