"""Hair: a mass behind the head and neck, and one in front of it with a window for the face."""

import dataclasses

import numpy as np

from . import classes, fields, noise
from .anatomy import Anatomy
from .canvas import Canvas
from .pose import Grid

# The shares of the styles.
_HER_STYLES = {"short": 0.12, "long": 0.42, "bob": 0.24, "buzz": 0.08, "afro": 0.14}
_HIS_STYLES = {"short": 0.6, "long": 0.08, "bob": 0.06, "buzz": 0.2, "afro": 0.06}


@dataclasses.dataclass(frozen=True)
class Hairdo:
    """How the hair is worn; lengths in head coordinates."""

    seed: int
    """Of the strands."""
    density: float
    """0 for a bald head, 1 where no skin shows through."""
    volume: float
    """How far it stands off the skull."""
    end: float
    """q where it ends at the sides."""
    opening: float
    """Half the width of the window for the face."""
    hairline: float
    """q of the window's upper end at the parting."""
    parting: float
    """p of the parting."""
    slope: float
    """How much the fringe falls to both sides of the parting; negative rises."""
    sweep: float
    """How much the fringe falls from the left to the right."""
    ragged: float
    """Depth of the fringe's single strands."""
    curl: float
    """Waves of the strands and of the outline."""
    back: float
    """q where the hair behind the neck ends."""

    @classmethod
    def sample(cls, rng: np.random.Generator, anatomy: Anatomy) -> "Hairdo":
        """Draws a hairdo that suits the face.

        Args:
          rng: source of what is random.
          anatomy: the face's measures and colours.

        Returns:
          The hairdo.
        """
        styles = _HER_STYLES if anatomy.feminine else _HIS_STYLES
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
            opening=anatomy.width - (rng.uniform(0.0, 0.05) if short else rng.uniform(0.02, 0.14)),
            hairline=hairline,
            parting=rng.uniform(-0.35, 0.35),
            slope=slope,
            sweep=sweep,
            ragged=ragged,
            curl=rng.uniform(0.6, 1.0) if style == "afro" else rng.uniform(0.0, 0.45) ** 1.5,
            back=-9.0 if short else hanging + rng.uniform(0.0, 0.3),
        )


def paint_behind(canvas: Canvas, grid: Grid, anatomy: Anatomy, hairdo: Hairdo) -> None:
    """Paints the hair that hangs down behind the head.

    Args:
      canvas: what is painted on.
      grid: of the whole frame.
      anatomy: the face's measures and colours.
      hairdo: how the hair is worn.
    """
    if hairdo.back < 0.0:
        return
    strands = _strands(grid, hairdo)
    half = anatomy.width + 0.06 + hairdo.volume + 0.06 * np.sin(2.5 * grid.q)
    half += 0.06 * hairdo.curl * np.sin(9.0 * grid.q + 2.0 * np.sign(grid.p))
    end = grid.q - hairdo.back + 0.25 * np.square(grid.p) + 0.1 * _jags(strands, hairdo)
    field = np.maximum(np.maximum(np.abs(grid.p) - half, end), -0.2 - grid.q)
    colour = 0.72 * _texture(grid, strands, anatomy.hair, hairdo)
    canvas.paint(grid, field, colour, classes.HAIR)


def paint_in_front(canvas: Canvas, grid: Grid, anatomy: Anatomy, hairdo: Hairdo) -> None:
    """Paints the hair on the head, its fringe and its shadow on the forehead.

    Args:
      canvas: what is painted on.
      grid: of the whole frame.
      anatomy: the face's measures and colours.
      hairdo: how the hair is worn.
    """
    if hairdo.density == 0.0:
        return
    strands = _strands(grid, hairdo)
    field = _front_field(grid, anatomy, hairdo, strands)
    shadow = np.exp(-np.maximum(field, 0.0) / 0.05) * fields.coverage(anatomy.face_field(grid))
    canvas.darken(grid, 0.4 * hairdo.density * shadow)
    # Shorn hair lets the skin show through.
    mixed = anatomy.skin + hairdo.density * (anatomy.hair - anatomy.skin)
    canvas.paint(grid, field, _texture(grid, strands, mixed, hairdo), classes.HAIR)


def _front_field(grid: Grid, anatomy: Anatomy, hairdo: Hairdo, strands: np.ndarray) -> np.ndarray:
    p, q = grid.p - 0.12 * grid.pose.yaw, grid.q - 0.5 * grid.pose.pitch
    jags = _jags(strands, hairdo)
    width = anatomy.width + 0.04 + hairdo.volume
    # The skull's crown is about as far above the eyes as the chin is below them.
    skull = fields.ellipse(p, q + 0.2, width, 1.07 + hairdo.volume) + 0.02 * jags
    wave = 0.05 * hairdo.curl * np.sin(9.0 * q + 2.0 * np.sign(p))
    sides = np.maximum(np.abs(p) - width + 0.01 - wave, -0.2 - q)
    mass = np.minimum(skull, sides) if hairdo.end > 0.3 else skull
    mass = np.maximum(mass, q - hairdo.end + 0.12 * jags)
    return np.maximum(mass, _window(p, q, hairdo, jags))


def _window(p: np.ndarray, q: np.ndarray, hairdo: Hairdo, jags: np.ndarray) -> np.ndarray:
    """Field of everything but the window for the face: positive inside the window."""
    offset = p - hairdo.parting
    line = hairdo.hairline + hairdo.slope * np.abs(offset) + hairdo.sweep * p
    line += 0.35 * np.square(p) + hairdo.ragged * jags
    # Narrower towards the top; straight down from the temples.
    across = np.abs(p) / hairdo.opening
    above = np.minimum(q - 0.15, 0.0) / 1.2
    rounded = 0.5 * hairdo.opening * (1.0 - across * across - above * above)
    return np.minimum(rounded, q - line)


def _fringe(style: str, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Draws hairline, slope, sweep and raggedness."""
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


def _strands(grid: Grid, hairdo: Hairdo) -> np.ndarray:
    """Strand number of every pixel: constant along a strand, which falls from the parting."""
    drop = np.sqrt(np.maximum(grid.q + 1.35 + hairdo.volume, 0.06))
    strands = 0.6 * (grid.p - hairdo.parting) / drop + 0.12 * hairdo.sweep * grid.q
    if hairdo.curl > 0.0:
        bends = np.sin(11.0 * grid.q + 5.0 * grid.p) + np.sin(17.0 * grid.p - 6.0 * grid.q)
        strands = strands + 0.025 * hairdo.curl * bends
    return strands


def _jags(strands: np.ndarray, hairdo: Hairdo) -> np.ndarray:
    line = noise.Line(np.random.default_rng(hairdo.seed))
    return line(strands * 45.0 + 100.0) + 0.4 * line(strands * 100.0)


def _texture(grid: Grid, strands: np.ndarray, colour: np.ndarray, hairdo: Hairdo) -> np.ndarray:
    rng = np.random.default_rng(hairdo.seed + 1)
    line = noise.Line(rng)
    tone = 0.6 * line(strands * 28.0) + 0.5 * line(strands * 130.0 + 0.5 * grid.q)
    if hairdo.curl > 0.5:
        tone = tone + 0.5 * noise.plane(rng, (80, 80), grid.shape)
    # Light runs along a band around the crown, broken up by the strands.
    radius = np.sqrt(np.square(grid.p) + np.square(grid.q + 0.1))
    band = np.exp(-np.square((radius - 0.98 + 0.06 * tone) / 0.13))
    band *= 1.0 - fields.smoothstep(grid.q, -0.5, 0.1)
    light = 0.86 + 0.26 * tone - 0.12 * fields.smoothstep(grid.q, -0.4, 1.2)
    shine = (0.10 + 0.25 * colour)[:, np.newaxis, np.newaxis] * band * (0.7 + 0.6 * tone)
    return np.clip(colour[:, np.newaxis, np.newaxis] * light + 0.7 * shine, 0.0, 1.0)
