"""Owners: which of several overlapping people each labelled pixel of a photo belongs to.

People are layers. Around each face a template of head, hair, neck and clothes gives where that
person would be visible alone; people in front hide those behind. Histograms of the colours that the
templates explain best decide where templates overlap, and a watershed moves the borders to edges of
the photo.

Lengths are in sides of the CelebAMask-HQ frame of a face, about 25 cm (four times the distance of
the eyes). v points down from the center of the frame, u to its right; chins are near v = 0.42.
Scores are natural logarithms of likelihoods.
"""

from typing import NamedTuple

import cv2
import numpy as np

from jax_stn_icnn.anatomy import Anatomy

# The watershed runs on a copy with at most these sides of the photo and of the median frame, in
# pixels; scores are computed on one that is smaller by the last factor.
_PHOTO_SIDE, _FRAME_SIDE, _COARSE = 512, 80, 2
# Groups of classes with a template each; classes that are not named here lie in the face.
_HEAD, _HAIR, _NECK, _CLOTH = range(4)
_GROUPS = {"hair": _HAIR, "neck": _NECK, "necklace": _NECK, "cloth": _CLOTH}
# Groups with the same number share their histogram.
_PALETTES = np.array([0, 1, 0, 2])

# The following were tuned on ten drawn groups (`tfds_builders.synthetic_faces.group`), seeds 0 to 3
# and 12 to 17, with blurred and noisy photos, wrong labels and inexact frames among them.
# The head is tilted around a point so far below the center, the body by this share of that tilt.
_PIVOT, _LEAN = 0.35, 0.25
# A template's score falls by 1 per this length outside of it.
_SOFT = 0.08
# Share of what is behind a person's silhouette that the person hides.
_HIDDEN = 0.85
# Of two people, the one who is lower by this length is in front with odds of e : 1.
_LOWER = 0.3
# Bins per channel of CIELAB, pixels and likelihood that are added to those of each colour.
_BINS, _FEW, _UNSEEN = 16, 20, 2e-3
# Weight of the colours' scores, which are averaged over a square of this side.
_WEIGHT, _AREA = 3.0, 0.06
_PASSES = 3
# Pixels whose best score exceeds the second by less are decided by the watershed.
_MARGIN = 1.0


class _Pixels(NamedTuple):
    """The labelled pixels of an image."""

    shape: tuple[int, ...]
    rows: np.ndarray
    columns: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray) -> "_Pixels":
        """Returns the pixels of an image of groups, -1 for background."""
        rows, columns = np.nonzero(groups >= 0)
        return cls(groups.shape, rows, columns, groups[rows, columns])

    def image(self, values: np.ndarray, outside: float) -> np.ndarray:
        """Returns an image of values of the pixels."""
        image = np.full(self.shape, outside, values.dtype)
        image[self.rows, self.columns] = values
        return image


def assign_owners(
    photo: np.ndarray,
    labels: np.ndarray,
    matrices: list[np.ndarray],
    frame_size: int,
    anatomy: Anatomy,
) -> np.ndarray:
    """Returns the face to which each pixel of a photo belongs.

    Args:
        photo: RGB uint8 (height, width, 3).
        labels: class ids of its pixels, of all faces together; uint8 (height, width).
        matrices: frame -> photo of each face, as in `framing`.
        frame_size: side of the frames in pixels.
        anatomy: the classes; those named hair, neck, necklace and cloth may be far from a face.

    Returns:
        Index of a face; -1 for background, and everywhere if there are no faces; int16
        (height, width).
    """
    labelled = labels > 0
    if len(matrices) < 2 or not labelled.any():
        return np.where(labelled, len(matrices) - 1, -1).astype(np.int16)
    known = [_GROUPS.get(name, _HEAD) for name in anatomy.classes[1:]]
    groups = np.array([-1, *known], np.int16)[labels]
    side = float(np.median([np.linalg.norm(matrix[:, 0]) for matrix in matrices])) * frame_size
    scale = min(1.0, _PHOTO_SIDE / max(labels.shape), _FRAME_SIDE / side)
    fine, fine_groups = _resized(photo, groups, scale)
    coarse, coarse_groups = _resized(photo, groups, scale / _COARSE)
    pixels = _Pixels.of(coarse_groups)
    if not len(pixels.rows):  # too few to be seen in a copy
        pixels = _Pixels.of(groups)
        best = _template_scores(pixels, np.stack(matrices), frame_size).argmax(axis=0)
        return pixels.image(best.astype(np.int16), -1)
    frames = np.stack(matrices) * scale / _COARSE
    scores = _template_scores(pixels, frames, frame_size)
    scores = _with_colours(pixels, coarse, scores, _AREA * scale / _COARSE * side)
    seeds = _spread(_seeds(pixels, scores), coarse_groups, fine_groups)
    return _spread(_flooded(fine, seeds), fine_groups, groups)


def extend_owners(owners: np.ndarray) -> np.ndarray:
    """Assigns background to the face of the nearest labelled pixel.

    Distances are measured on a copy with sides of at most 512 pixels.

    Args:
        owners: index of a face, -1 for background; int16 (height, width).

    Returns:
        Index of a face, int16 (height, width); 0 if everything is background.
    """
    labelled = owners >= 0
    if not labelled.any():
        return np.zeros_like(owners)
    scale = min(1.0, _PHOTO_SIDE / max(owners.shape))
    size = [max(round(scale * n), 1) for n in owners.shape[::-1]]
    small = cv2.resize(owners, size, interpolation=cv2.INTER_NEAREST)
    if not np.any(small >= 0):  # too few to be seen in a copy
        small = owners
    one_group = np.where(small >= 0, 0, -1)
    return np.where(labelled, owners, _spread(small, one_group, np.zeros_like(owners)))


def _resized(photo: np.ndarray, groups: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns a photo and its groups at another scale."""
    size = max(round(scale * groups.shape[1]), 1), max(round(scale * groups.shape[0]), 1)
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    return small, cv2.resize(groups, size, interpolation=cv2.INTER_NEAREST)


def _template_scores(pixels: _Pixels, frames: np.ndarray, frame_size: int) -> np.ndarray:
    """Returns how well each face's template explains each pixel, (faces, pixels)."""
    center = np.full(2, (frame_size - 1) / 2)
    centers = frames[:, :, :2] @ center + frames[:, :, 2]
    axes = frames[:, :, 0] * frame_size
    sides = np.linalg.norm(axes, axis=1)
    axes /= sides[:, None]
    upright = axes.mean(axis=0)
    # Whoever is turned further from the others than a neck allows is turned with the body.
    bent = (axes @ upright > 0.5)[:, None]
    leaning = np.where(bent, _LEAN * axes + (1 - _LEAN) * upright, axes)
    leaning /= np.linalg.norm(leaning, axis=1, keepdims=True)
    scores = np.empty((len(frames), len(pixels.rows)), np.float32)
    hidden = np.empty_like(scores)
    for face, (origin, side, axis, lean) in enumerate(
        zip(centers, sides, axes, leaning, strict=True)
    ):
        x = ((pixels.columns - origin[0]) / side).astype(np.float32)
        y = ((pixels.rows - origin[1]) / side).astype(np.float32)
        head = axis[0] * x + axis[1] * y, axis[0] * y - axis[1] * x
        x, y = x + _PIVOT * axis[1], y - _PIVOT * axis[0]
        body = lean[0] * x + lean[1] * y, lean[0] * y - lean[1] * x + _PIVOT
        outside, silhouette = _distances(pixels.groups, head, body)
        scores[face] = -np.maximum(outside, 0) / _SOFT
        hidden[face] = np.log(1 - _HIDDEN * np.clip(0.5 - silhouette / (4 * _SOFT), 0, 1))
    depths = (centers @ np.array([-upright[1], upright[0]])) / np.median(sides)
    before = 1 / (1 + np.exp((depths[:, None] - depths) / _LOWER))
    np.fill_diagonal(before, 0)
    return scores + before.astype(np.float32) @ hidden


def _distances(
    groups: np.ndarray, head: tuple[np.ndarray, np.ndarray], body: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distances of pixels from the template of their group and from the silhouette.

    Args:
        groups: group of each pixel.
        head: (u, v) of each pixel, rotated with the head.
        body: (u, v) rotated with the body.

    Returns:
        Signed distances, negative inside.
    """
    u, v = body
    side = np.abs(u)
    hair = _capsule(*head, -0.12, 0.15, 0.38)
    neck = _capsule(u, v, 0.35, 0.75, 0.24)
    shoulders = 0.6 + 0.28 * np.square(np.minimum(side, 1))
    cloth = np.maximum(shoulders - v, side - 0.85 - 0.05 * np.maximum(v - 1, 0))
    # Hair that falls to the chest is rarer than hair above the chin.
    long = np.maximum(_capsule(u, v, 0.2, 0.9, 0.36), 0) + 0.05 + 0.1 * np.clip(v - 0.4, 0, 0.6)
    outside = np.choose(groups, [hair + 0.08, np.minimum(hair, long), neck, cloth])
    return outside, np.minimum(np.minimum(hair, neck), cloth)


def _capsule(u: np.ndarray, v: np.ndarray, top: float, bottom: float, radius: float) -> np.ndarray:
    """Returns the signed distance from a vertical capsule around u = 0."""
    return np.sqrt(np.square(u) + np.square(v - np.clip(v, top, bottom))) - radius


def _with_colours(
    pixels: _Pixels, photo: np.ndarray, scores: np.ndarray, area: float
) -> np.ndarray:
    """Returns scores to which those of each face's colours are added, (faces, pixels)."""
    lab = cv2.cvtColor(photo, cv2.COLOR_RGB2LAB)[pixels.rows, pixels.columns].astype(np.int32)
    # Hardly any colours of a photo are in the outer half of a and b.
    lab[:, 1:] = np.clip(2 * lab[:, 1:] - 128, 0, 255)
    bins = lab * _BINS // 256
    shape = (3, _BINS, _BINS, _BINS)
    index = np.ravel_multi_index((_PALETTES[pixels.groups], *bins.T), shape)
    masks = [
        pixels.image((pixels.groups == group).astype(np.float32), 0) for group in (_HAIR, _CLOTH)
    ]
    window = (2 * round(area / 2) + 1,) * 2
    areas = [np.maximum(cv2.blur(mask, window), 1e-6) for mask in masks]
    total = scores
    for _ in range(_PASSES):
        shares = np.exp(total - total.max(axis=0))
        weights = (shares / shares.sum(axis=0)) ** 2
        total = scores.copy()
        tables = np.stack([np.bincount(index, weight, np.prod(shape)) for weight in weights])
        tables = _blurred(tables.reshape(-1, *shape).astype(np.float32))
        sums = tables.sum(axis=(2, 3, 4), keepdims=True)
        likelihoods = np.log(tables / (sums + _FEW) + _UNSEEN).reshape(len(scores), -1)
        for face, table in enumerate(likelihoods):
            evidence = table[index]
            plane = pixels.image(evidence, 0)
            for group, mask, norm in zip((_HAIR, _CLOTH), masks, areas, strict=True):
                mean = cv2.blur(plane * mask, window) / norm
                inside = pixels.groups == group
                evidence[inside] = mean[pixels.rows[inside], pixels.columns[inside]]
            total[face] += _WEIGHT * evidence
    return total


def _blurred(tables: np.ndarray) -> np.ndarray:
    """Returns histograms (faces, palettes, bins, bins, bins) smoothed over neighbouring bins."""
    for axis in (2, 3, 4):
        before = np.take(tables, np.maximum(np.arange(_BINS) - 1, 0), axis)
        after = np.take(tables, np.minimum(np.arange(_BINS) + 1, _BINS - 1), axis)
        tables = 0.5 * tables + 0.25 * (before + after)
    return tables


def _seeds(pixels: _Pixels, scores: np.ndarray) -> np.ndarray:
    """Returns 2 face + 1 where the best face is certain, else 2 face; -1 for background."""
    best = scores.argmax(axis=0).astype(np.int16)
    second, first = np.partition(scores, -2, axis=0)[-2:]
    square = np.ones((3, 3), np.uint8)
    highest = cv2.dilate(pixels.image(best, -1), square)
    lowest = cv2.erode(pixels.image(best, len(scores)), square)
    inner = (highest == lowest)[pixels.rows, pixels.columns]
    return pixels.image(2 * best + (inner & (first - second > _MARGIN)), -1)


def _flooded(photo: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Returns faces, -1 for background: a watershed spreads those that are certain."""
    best, certain = seeds >> 1, seeds & 1
    markers = np.where(certain == 1, best.astype(np.int32) + 2, 0)
    # The watershed leaves the outermost pixels undecided.
    border = (1, 1, 1, 1)
    markers = cv2.copyMakeBorder(markers, *border, cv2.BORDER_CONSTANT, value=1)
    cv2.watershed(cv2.copyMakeBorder(photo, *border, cv2.BORDER_REPLICATE), markers)
    found = markers[1:-1, 1:-1] - 2
    # Lines between regions, and what only background surrounds.
    return np.where(found < 0, best, found).astype(np.int16)


def _spread(values: np.ndarray, groups: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns an image enlarged with the values of the nearest pixels of the same group.

    Args:
        values: int16 (h, w).
        groups: group of each pixel, -1 for background.
        wanted: groups at the size of the result.

    Returns:
        int16 of the shape of `wanted`; -1 for background.
    """
    result = np.full(wanted.shape, -1, np.int16)
    for group in range(4):
        inside = wanted == group
        if not inside.any():
            continue
        known = groups == group
        if not known.any():
            known = groups >= 0
        _, nearest = cv2.distanceTransformWithLabels(
            (~known).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
        )
        table = np.zeros(nearest.max() + 1, np.int16)
        table[nearest[known]] = values[known]
        filled = cv2.resize(table[nearest], wanted.shape[::-1], interpolation=cv2.INTER_NEAREST)
        np.copyto(result, filled, where=inside)
    return result
