"""Paints hair: a shape behind the head and neck, and one in front, with an opening for the face."""

import dataclasses

import numpy as np

from . import classes, fields, noise
from .canvas import Canvas
from .pose import Grid
from .traits import Traits

# The probabilities of the styles.
_FEMININE_STYLES = {"short": 0.12, "long": 0.42, "bob": 0.24, "buzz": 0.08, "afro": 0.14}
_MASCULINE_STYLES = {"short": 0.6, "long": 0.08, "bob": 0.06, "buzz": 0.2, "afro": 0.06}


@dataclasses.dataclass(frozen=True)
class Hairstyle:
    """Style of the hair; lengths are in head coordinates."""

    seed: int
    """Seed of the strands' noise."""
    density: float
    """0 for a bald head, 1 for opaque hair."""
    volume: float
    """Distance between the outline and the skull."""
    end: float
    """q of the hair's end at the sides."""
    opening: float
    """Half the width of the opening for the face."""
    hairline: float
    """q of the opening's upper end at the parting."""
    parting: float
    """p of the parting."""
    slope: float
    """Slope of the fringe away from the parting; positive is downwards."""
    sweep: float
    """Slope of the fringe from left to right; positive is downwards."""
    ragged: float
    """Amplitude of the fringe's strands."""
    curl: float
    """Amplitude of the waves of strands and outline."""
    back: float
    """q of the end of the hair behind the neck; negative if there is none."""

    @classmethod
    def sample(cls, rng: np.random.Generator, traits: Traits) -> "Hairstyle":
        """Samples a hairstyle for a face.

        Args:
          rng: random number generator.
          traits: the face's measures and colours.

        Returns:
          The hairstyle.
        """
        styles = _FEMININE_STYLES if traits.feminine else _MASCULINE_STYLES
        style = str(rng.choice(list(styles), p=list(styles.values())))
        bald = style == "buzz" and rng.random() < 0.35
        short = style in ("short", "buzz", "afro")
        volume = {"buzz": (0.0, 0.04), "afro": (0.25, 0.5)}.get(style, (0.07, 0.26))
        end = {"long": (0.9, 2.2), "bob": (0.5, 1.0)}.get(style, (-0.1, 0.2))
        hanging = rng.uniform(*end)
        hairline, slope, sweep, ragged = _fringe(style, rng)
        return cls(
            seed=int(rng.integers(2**31)),
            density=0.0 if bald else rng.uniform(0.55, 0.8) if style == "buzz" else 1.0,
            volume=rng.uniform(*volume),
            end=hanging,
            opening=traits.width - (rng.uniform(0.0, 0.05) if short else rng.uniform(0.02, 0.14)),
            hairline=hairline,
            parting=rng.uniform(-0.35, 0.35),
            slope=slope,
            sweep=sweep,
            ragged=ragged,
            curl=rng.uniform(0.6, 1.0) if style == "afro" else rng.uniform(0.0, 0.45) ** 1.5,
            back=-9.0 if short else hanging + rng.uniform(0.0, 0.3),
        )


def paint_behind(canvas: Canvas, grid: Grid, traits: Traits, hairstyle: Hairstyle) -> None:
    """Paints the hair that hangs down behind the head.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
      hairstyle: the hair to paint.
    """
    if hairstyle.back < 0.0:
        return
    strands = strand_coordinates(grid, hairstyle)
    half = traits.width + 0.06 + hairstyle.volume + 0.06 * np.sin(2.5 * grid.q)
    half += 0.06 * hairstyle.curl * np.sin(9.0 * grid.q + 2.0 * np.sign(grid.p))
    end = grid.q - hairstyle.back + 0.25 * np.square(grid.p) + 0.1 * ragged_ends(strands, hairstyle)
    field = np.maximum(np.maximum(np.abs(grid.p) - half, end), -0.2 - grid.q)
    colour = 0.72 * texture(grid, strands, traits.hair, hairstyle)
    canvas.paint(grid, field, colour, classes.HAIR)


def paint_in_front(canvas: Canvas, grid: Grid, traits: Traits, hairstyle: Hairstyle) -> None:
    """Paints the hair on the head, its fringe and its shadow on the forehead.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      traits: the face's measures and colours.
      hairstyle: the hair to paint.
    """
    if hairstyle.density == 0.0:
        return
    strands = strand_coordinates(grid, hairstyle)
    field = _front_field(grid, traits, hairstyle, strands)
    shadow = np.exp(-np.maximum(field, 0.0) / 0.05) * fields.coverage(traits.face_field(grid))
    canvas.darken(grid, 0.4 * hairstyle.density * shadow)
    # Skin is visible through very short hair.
    mixed = traits.skin + hairstyle.density * (traits.hair - traits.skin)
    canvas.paint(grid, field, texture(grid, strands, mixed, hairstyle), classes.HAIR)


def strand_coordinates(grid: Grid, hairstyle: Hairstyle) -> np.ndarray:
    """Returns each pixel's strand coordinate, constant along a strand from the parting down.

    Args:
      grid: the grid of the full frame.
      hairstyle: the hair's style.

    Returns:
      float (H, W).
    """
    drop = np.sqrt(np.maximum(grid.q + 1.35 + hairstyle.volume, 0.06))
    strands = 0.6 * (grid.p - hairstyle.parting) / drop + 0.12 * hairstyle.sweep * grid.q
    if hairstyle.curl > 0.0:
        bends = np.sin(11.0 * grid.q + 5.0 * grid.p) + np.sin(17.0 * grid.p - 6.0 * grid.q)
        strands = strands + 0.025 * hairstyle.curl * bends
    return strands


def ragged_ends(strands: np.ndarray, hairstyle: Hairstyle) -> np.ndarray:
    """Returns by how much the ends of the strands differ, about in [-1.4, 1.4].

    Args:
      strands: strand coordinates, float (H, W).
      hairstyle: the hair's style.

    Returns:
      float (H, W).
    """
    line = noise.Line(np.random.default_rng(hairstyle.seed))
    return line(strands * 45.0 + 100.0) + 0.4 * line(strands * 100.0)


def texture(
    grid: Grid, strands: np.ndarray, colour: np.ndarray, hairstyle: Hairstyle
) -> np.ndarray:
    """Returns the colours of the strands, with the highlight around the crown.

    Args:
      grid: the grid of the full frame.
      strands: strand coordinates, float (H, W).
      colour: RGB, (3,).
      hairstyle: the hair's style.

    Returns:
      float (3, H, W) in [0, 1].
    """
    rng = np.random.default_rng(hairstyle.seed + 1)
    line = noise.Line(rng)
    tone = 0.6 * line(strands * 28.0) + 0.5 * line(strands * 130.0 + 0.5 * grid.q)
    if hairstyle.curl > 0.5:
        tone = tone + 0.5 * noise.plane(rng, (80, 80), grid.shape)
    # The highlight is a band around the crown, modulated by the strands.
    radius = np.sqrt(np.square(grid.p) + np.square(grid.q + 0.1))
    band = np.exp(-np.square((radius - 0.98 + 0.06 * tone) / 0.13))
    band *= 1.0 - fields.smoothstep(grid.q, -0.5, 0.1)
    light = 0.86 + 0.26 * tone - 0.12 * fields.smoothstep(grid.q, -0.4, 1.2)
    shine = (0.10 + 0.25 * colour)[:, np.newaxis, np.newaxis] * band * (0.7 + 0.6 * tone)
    return np.clip(colour[:, np.newaxis, np.newaxis] * light + 0.7 * shine, 0.0, 1.0)


def _front_field(
    grid: Grid, traits: Traits, hairstyle: Hairstyle, strands: np.ndarray
) -> np.ndarray:
    p, q = grid.p - 0.12 * grid.pose.yaw, grid.q - 0.5 * grid.pose.pitch
    jags = ragged_ends(strands, hairstyle)
    width = traits.width + 0.04 + hairstyle.volume
    # The crown is about as far above the eyes as the chin is below them.
    skull = fields.ellipse(p, q + 0.2, width, 1.07 + hairstyle.volume) + 0.02 * jags
    wave = 0.05 * hairstyle.curl * np.sin(9.0 * q + 2.0 * np.sign(p))
    sides = np.maximum(np.abs(p) - width + 0.01 - wave, -0.2 - q)
    mass = np.minimum(skull, sides) if hairstyle.end > 0.3 else skull
    mass = np.maximum(mass, q - hairstyle.end + 0.12 * jags)
    return np.maximum(mass, _opening(p, q, hairstyle, jags))


def _opening(p: np.ndarray, q: np.ndarray, hairstyle: Hairstyle, jags: np.ndarray) -> np.ndarray:
    """Returns a field that is positive inside the opening for the face."""
    offset = p - hairstyle.parting
    line = hairstyle.hairline + hairstyle.slope * np.abs(offset) + hairstyle.sweep * p
    line += 0.35 * np.square(p) + hairstyle.ragged * jags
    # Narrower towards the top; vertical below the temples.
    across = np.abs(p) / hairstyle.opening
    above = np.minimum(q - 0.15, 0.0) / 1.2
    rounded = 0.5 * hairstyle.opening * (1.0 - across * across - above * above)
    return np.minimum(rounded, q - line)


def _fringe(style: str, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Samples hairline, slope, sweep and raggedness."""
    kind = rng.random()
    if style in ("buzz", "afro") or kind < 0.5:
        return rng.uniform(-0.98, -0.72), 0.0, rng.normal(0.0, 0.05), rng.uniform(0.0, 0.02)
    if kind < 0.63:
        line, slope = rng.uniform(-0.6, -0.2), rng.uniform(-0.05, 0.05)
        return line, slope, rng.normal(0.0, 0.05), rng.uniform(0.01, 0.08)
    if kind < 0.8:
        sweep = float(rng.choice([-1.0, 1.0])) * rng.uniform(0.2, 0.5)
        return rng.uniform(-0.7, -0.5), 0.0, sweep, rng.uniform(0.01, 0.06)
    return rng.uniform(-1.0, -0.85), rng.uniform(0.3, 0.8), 0.0, rng.uniform(0.0, 0.03)
