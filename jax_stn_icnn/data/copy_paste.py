"""Regions of rare classes, pasted from one aligned record onto another.

This module does not import JAX; see `loader`.
"""

from typing import Any, NamedTuple

import numpy as np

from jax_stn_icnn.data.examples import Examples
from jax_stn_icnn.data.rare import RareClasses

_DONORS = 4  # records of which the best is pasted
# Lengths as shares of the frame's side.
_SHIFT = 1 / 64  # largest shift of a region, either way
_GAP = 1 / 24  # half the largest width of parts between regions, such as the bridge of the nose
_EDGE = 1 / 256  # width of the edge that a region loses
_RING = 1 / 64  # width of the surroundings of a region
_LEAST_AGREEMENT = 0.5  # share of the surroundings that must have the same label in both records
_GAIN = 1.5  # largest change of a region's brightness, either way


class _Region(NamedTuple):
    """A record's shifted frame (S, S, 3) and labels (S, S); masks (S, S) of its region and ring."""

    frame: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    around: np.ndarray

    def agreement(self, labels: np.ndarray) -> float:
        """Returns the share of the ring that has the same label in other labels (S, S)."""
        return float((self.labels == labels)[self.around].mean()) if self.mask.any() else 0.0


class CopyPaste:
    """Pastes the region of a rare class of another record onto some examples.

    The region has the place that it has in the other record, up to a small shift. It consists of
    the class's pixels and of parts of the face that lie within or between them, such as the eyes
    behind glasses. Of a few records the one is used whose labels around its region agree best with
    the example's, if half of them do, and its brightness is adapted to the example's there. An
    example never receives a class that it may have already.
    """

    def __init__(self, examples: Examples, rare: RareClasses, seed: int):
        """Stores the arguments.

        Args:
            examples: The examples, all aligned and without padding.
            rare: The rare classes.
            seed: Determines, with an example's position in the stream, what it receives.
        """
        self._examples, self._rare, self._seed = examples, rare, seed
        self._parts = np.array(examples.anatomy.part_class_ids)
        label_sets = examples.label_sets
        self._may_be = label_sets.members.copy()  # (labels, classes)
        if label_sets.ignored is not None:
            self._may_be[label_sets.ignored] = False

    def __call__(self, position: int, example: dict[str, Any]) -> dict[str, Any]:
        """Returns the example of a position in the stream, with a region pasted or unchanged."""
        rng = np.random.default_rng((self._seed, position))
        if rng.random() >= self._rare.paste:
            return example
        present = self._may_be[np.unique(example["labels"])].any(axis=0)
        absent = [place for place, id_ in enumerate(self._rare.ids) if not present[id_]]
        if not absent:
            return example
        place = rng.choice(absent)
        records = self._rare.records[place]
        donors = rng.choice(records, min(_DONORS, len(records)), replace=False)
        regions = [self._region(int(index), self._rare.ids[place], rng) for index in donors]
        best = max(regions, key=lambda region: region.agreement(example["labels"]))
        if best.agreement(example["labels"]) < _LEAST_AGREEMENT:
            return example
        return example | _paste(example, best)

    def _region(self, index: int, class_id: int, rng: np.random.Generator) -> _Region:
        """Returns a record's region of a class, shifted at random."""
        donor = self._examples[index]
        most = _pixels(_SHIFT, donor)
        rows, columns = rng.integers(-most, most + 1, 2)
        frame, labels = (_shift(donor[name], rows, columns) for name in ("frame", "labels"))
        mask = labels == class_id
        closed = _erode(_dilate(mask, _pixels(_GAP, donor)), _pixels(_GAP, donor))
        mask |= closed & np.isin(labels, self._parts)
        # The outermost pixels of hats often show the background; thin regions have no others.
        edge = _pixels(_EDGE, donor)
        thick = _dilate(_erode(mask, 3 * edge), 3 * edge)
        around = _dilate(mask, _pixels(_RING, donor)) & ~mask
        return _Region(frame, labels, mask & (_erode(mask, edge) | ~thick), around)


def _paste(example: dict[str, Any], region: _Region) -> dict[str, Any]:
    """Returns an example's frame and labels with a region, blended over the pixels next to it."""
    frame = example["frame"].astype(np.float32)
    pasted = region.frame.astype(np.float32)
    # Pixels of the same class should be equally bright; backgrounds differ for other reasons.
    face = region.around & (region.labels == example["labels"]) & (region.labels > 0)
    if face.any():
        pasted *= np.clip((frame[face].mean() + 1) / (pasted[face].mean() + 1), 1 / _GAIN, _GAIN)
    alpha = (np.float32(0.5) * region.mask + np.float32(0.5) * _dilate(region.mask, 1))[..., None]
    blended = np.clip(np.round(frame + alpha * (pasted - frame)), 0, 255)
    return {
        "frame": blended.astype(np.uint8),
        "labels": np.where(region.mask, region.labels, example["labels"]),
    }


def _pixels(share: float, example: dict[str, Any]) -> int:
    """Returns a length in pixels, at least 1."""
    return max(round(share * len(example["labels"])), 1)


def _shift(array: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Returns an image shifted down and right, with its outermost pixels repeated."""
    height, width = array.shape[:2]
    y = np.clip(np.arange(height) - rows, 0, height - 1)
    x = np.clip(np.arange(width) - columns, 0, width - 1)
    return array[y[:, None], x]


def _dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Returns which squares around the pixels of a mask (h, w), its edges repeated, meet it."""
    side, mask = 2 * radius + 1, np.pad(mask, radius, mode="edge")
    for _ in range(2):
        width = 1
        while width < side:
            step = min(width, side - width)
            mask, width = mask[step:] | mask[:-step], width + step
        mask = mask.T
    return mask


def _erode(mask: np.ndarray, radius: int) -> np.ndarray:
    return ~_dilate(~mask, radius)
