"""The differentiable sampler: cuts patches from a frame by theta, and pastes them back.

All sampling pulls: an output pixel looks up where in the input it comes from; outside the image
there is zero.
"""

from jax_stn_icnn.ops.crop import (
    IDENTITY,
    affine_grid,
    crop_bilinear,
    crop_nearest,
    crop_part_labels,
    crop_parts,
    enlarge,
    resize_bilinear,
    take_labels,
)
from jax_stn_icnn.ops.paste import paste

__all__ = [
    "IDENTITY",
    "affine_grid",
    "crop_bilinear",
    "crop_nearest",
    "crop_part_labels",
    "crop_parts",
    "enlarge",
    "paste",
    "take_labels",
    "resize_bilinear",
]
