"""A head: its measures, its lamp, and the painting of everything but hair and neck."""

import dataclasses

import numpy as np

from . import accessories, brows, eyes, mouth, nose, skin
from .canvas import Canvas
from .hair import Hairstyle
from .lighting import Lamp
from .pose import Grid, Pose
from .traits import Traits

SPLITS = ("train", "validation", "test")
_SEED = 20130623


@dataclasses.dataclass(frozen=True)
class Head:
    """A head, which depends only on its split and its index."""

    pose: Pose
    traits: Traits
    lamp: Lamp
    hairstyle: Hairstyle
    streams: tuple[np.random.Generator, ...]
    """Random numbers of the layers that are not measures: a change in one does not change others.

    4 background, 5 skin and parts, 6 accessories, 7 camera, 8 hat and long hair, 9 clothes,
    10 place in a portrait."""

    @classmethod
    def sample(cls, split: str, index: int) -> "Head":
        """Samples a head.

        Args:
          split: one of SPLITS; their heads differ.
          index: index of the head in its split, from 0.

        Returns:
          The head.

        Raises:
          ValueError: if there is no such split, or the index is negative.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
        if index < 0:
            raise ValueError(f"index must not be negative; got {index}")
        seeds = np.random.SeedSequence([_SEED, SPLITS.index(split), index]).spawn(11)
        streams = tuple(np.random.default_rng(seed) for seed in seeds)
        pose, traits = Pose.sample(streams[0]), Traits.sample(streams[1])
        lamp, hairstyle = Lamp.sample(streams[2]), Hairstyle.sample(streams[3], traits)
        return cls(pose, traits, lamp, hairstyle, streams)


def paint_head(canvas: Canvas, grid: Grid, head: Head) -> list[accessories.Lens]:
    """Paints ears, face, beard, the parts of the face, and glasses.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      head: the head.

    Returns:
      The lenses of the glasses, if it has any; they do not change the classes.
    """
    traits, lamp, rng = head.traits, head.lamp, head.streams[5]
    skin.paint_ears(canvas, grid, traits)
    skin.paint_face(canvas, grid, traits, lamp, rng)
    skin.paint_beard(canvas, grid, traits, rng)
    nose.paint_nose(canvas, grid, traits)
    mouth.paint_mouth(canvas, grid, traits, rng)
    eyes.paint_eyes(canvas, grid, traits, lamp, rng)
    brows.paint_brows(canvas, grid, traits, rng)
    return accessories.paint_glasses(canvas, grid, traits, head.streams[6])
