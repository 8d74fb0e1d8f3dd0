"""Converts images to the colours of sRGB by the ICC profile in their file."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

_MODES = ("L", "RGB", "CMYK")
# Corners of a lattice of the colours of RGB; its grays come first.
_LEVELS = np.linspace(0, 255, 9).round().astype(np.uint8)
_GRAYS = np.repeat(_LEVELS[:, None], 3, axis=1)
_COLOURS = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), axis=-1).reshape(-1, 3)
_LATTICE = np.concatenate([_GRAYS, _COLOURS])[None]


def to_srgb(image: Image.Image) -> Image.Image:
    """Converts an image to sRGB.

    Args:
        image: an image of mode L, RGB or CMYK; others are returned unchanged.

    Returns:
        The image in sRGB, of mode RGB. The image itself if it has no profile, one that is damaged
        or of another kind of colours, or one that is equal to sRGB.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in _MODES:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, image.mode, "RGB")
        if image.mode != "CMYK" and not _changes_colours(transform, image.mode):
            return image
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError):  # a damaged profile, or one of another kind of colours
        return image
    assert converted is not None  # None only for a conversion in place
    return converted


def _changes_colours(transform: Any, mode: str) -> bool:
    """Whether a profile differs from sRGB by more than rounding, and is a plausible one."""
    before = Image.fromarray(_LATTICE).convert(mode)
    found = np.asarray(ImageCms.applyTransform(before, transform), np.float32)
    change = np.abs(found - np.asarray(before.convert("RGB"), np.float32))
    # Profiles leave black dark, white white, and grays in their order. Damaged ones may not.
    grays = found[0, : len(_LEVELS)]
    is_ordered = bool(np.all(np.diff(grays.mean(axis=1)) >= 0))
    is_plausible = is_ordered and grays[0].max() <= 80 and grays[-1].min() >= 230
    return bool(is_plausible and change.max() > 1)
