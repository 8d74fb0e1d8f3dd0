"""Paints clothes: shirts, pullovers, dresses and jackets, plain or patterned."""

import dataclasses

import numpy as np

from . import classes, fields, noise
from .body import Build
from .canvas import Canvas
from .lighting import Lamp, shaded
from .pose import Grid

_KINDS = ("tee", "v_neck", "dress", "shirt", "jacket", "turtleneck", "hood")
_PATTERNS = ("plain", "hoops", "stripes", "checks", "dots", "print")
_PATTERN_SHARES = (0.5, 0.14, 0.08, 0.1, 0.06, 0.12)


@dataclasses.dataclass(frozen=True)
class Outfit:
    """Clothes; lengths are in head coordinates."""

    kind: str
    """One of tee, v_neck, dress, shirt, jacket, turtleneck and hood."""
    depth: float
    """q of the lowest point of the neckline."""
    pattern: str
    scale: float
    """Length of the pattern's period."""
    colours: np.ndarray
    """RGB of cloth, pattern, sleeves or collar, and what is worn underneath; (4, 3)."""
    sleeves: bool
    """Whether the sleeves have a colour of their own."""
    seed: int
    """Seed of the folds."""

    @property
    def sleeve(self) -> np.ndarray:
        """Colour of the sleeves, RGB (3,)."""
        return self.colours[2 if self.sleeves else 0]

    @classmethod
    def sample(cls, rng: np.random.Generator, feminine: bool) -> "Outfit":
        """Samples clothes.

        Args:
          rng: random number generator.
          feminine: whether they may be a dress.

        Returns:
          The clothes.
        """
        shares = (0.25, 0.15, 0.2 * feminine, 0.15, 0.15, 0.1, 0.1)
        kind = str(rng.choice(_KINDS, p=np.array(shares) / sum(shares)))
        depths = {"v_neck": (2.1, 2.6), "dress": (2.1, 2.5), "shirt": (1.8, 2.2)}
        tones = rng.uniform(0.06, 0.9, (4, 1)) + rng.normal(0.0, 0.15, (4, 3))
        return cls(
            kind=kind,
            depth=rng.uniform(*depths.get(kind, (1.72, 1.95))),
            pattern=str(rng.choice(_PATTERNS, p=_PATTERN_SHARES)),
            scale=rng.uniform(0.18, 0.6),
            colours=np.clip(tones, 0.03, 0.95).astype(np.float32),
            sleeves=bool(rng.random() < 0.2),
            seed=int(rng.integers(2**31)),
        )


def paint_clothes(canvas: Canvas, grid: Grid, build: Build, outfit: Outfit, lamp: Lamp) -> None:
    """Paints the clothes over neck and chest.

    Args:
      canvas: the canvas to paint on.
      grid: the bent grid.
      build: the body's measures.
      outfit: the clothes.
      lamp: the light source.
    """
    light = _light(grid, build, outfit, lamp)
    outline = build.outline(grid)
    if outfit.kind in ("shirt", "jacket"):
        _paint_buttoned(canvas, grid, build, outfit, light)
        return
    field = np.maximum(outline, -_neckline(grid, outfit))
    if outfit.kind == "turtleneck":
        roll = np.maximum(np.abs(grid.p) - build.neck - 0.09, np.abs(grid.q - 1.58) - 0.27)
        field = np.minimum(outline, roll)
        # The lower edge of the folded collar.
        crease = np.exp(-np.square((grid.q - 1.8 + 0.35 * np.square(grid.p)) / 0.035))
        light = light * (
            1.0 - 0.3 * crease * fields.smoothstep(build.neck + 0.2 - np.abs(grid.p), 0.0, 0.2)
        )
    _paint_shadow(canvas, grid, field, 0.3, 0.06)
    canvas.paint(grid, field, _lit(_cloth(grid, build, outfit), light), classes.CLOTH)
    if outfit.kind == "turtleneck":
        return
    _paint_band(canvas, grid, build, outfit, light)


def _paint_band(
    canvas: Canvas, grid: Grid, build: Build, outfit: Outfit, light: np.ndarray
) -> None:
    """Paints the band around the neckline, or a hood that lies around the neck."""
    edge, outline = _neckline(grid, outfit), build.outline(grid)
    if outfit.kind == "hood":
        ring = np.maximum(-edge, fields.ellipse(grid.p, grid.q - 1.55, 1.05, 0.72))
        ring = np.maximum(ring, np.minimum(outline - 0.12, np.abs(grid.p) - build.neck - 0.12))
        roundness = 1.0 - 0.45 * np.abs(np.clip(edge / 0.45, 0.0, 1.0) - 0.4)
        canvas.paint(grid, ring, _lit(outfit.colours[0], 0.95 * light * roundness), classes.CLOTH)
        for side in (-1.0, 1.0):
            cord = fields.capsule(grid.p, grid.q, ((0.22 * side, 1.95), (0.26 * side, 2.9)), 0.025)
            canvas.paint(grid, cord, _lit(outfit.colours[2], light), classes.CLOTH)
        return
    width = 0.02 if outfit.kind == "dress" else 0.09
    band = np.maximum(np.maximum(outline, -edge), edge - width)
    canvas.paint(grid, band, _lit(outfit.sleeve, 0.9 * light), classes.CLOTH)
    canvas.darken(grid, 0.3 * fields.stroke_coverage(edge - width, 0.7) * (outline < 0.0))


def _paint_buttoned(
    canvas: Canvas, grid: Grid, build: Build, outfit: Outfit, light: np.ndarray
) -> None:
    """Paints a shirt with collar and buttons, and a jacket over it."""
    p, q, side, outline = grid.p, grid.q, np.abs(grid.p), build.outline(grid)
    jacket = outfit.kind == "jacket"
    opening = (outfit.depth - q) * 0.42 - side
    body = np.maximum(np.maximum(outline, opening), 1.3 - q)
    _paint_shadow(canvas, grid, body, 0.3, 0.06)
    plain = outfit.colours[3] if jacket else _pattern(grid, outfit)
    canvas.paint(grid, body, _lit(plain, light), classes.CLOTH)
    seam = np.exp(-np.square((p - 0.07) / 0.012)) * (q > outfit.depth) * (outline < 0.0)
    canvas.darken(grid, 0.35 * seam)
    if jacket and outfit.sleeves:
        knot = np.maximum(side - 0.13 + 0.12 * (q - outfit.depth), np.abs(q - outfit.depth) - 0.14)
        tie = np.maximum(side - 0.07 - 0.05 * (q - outfit.depth), outfit.depth - q)
        tie_field = np.minimum(knot, tie)
        _paint_shadow(canvas, grid, tie_field, 0.3, 0.04)
        canvas.paint(grid, tie_field, _lit(outfit.colours[2], light), classes.CLOTH)
    else:
        row = np.mod(q - outfit.depth, 0.55) - 0.3
        button = np.maximum(np.hypot(p, row) - 0.035, outfit.depth + 0.1 - q)
        canvas.paint(grid, button, _lit(outfit.colours[2], light), classes.CLOTH)
    if jacket:
        _paint_jacket(canvas, grid, outline, outfit, light)
    _paint_collar(canvas, grid, build, outfit, light)


def _paint_jacket(
    canvas: Canvas, grid: Grid, outline: np.ndarray, outfit: Outfit, light: np.ndarray
) -> None:
    q, side = grid.q, np.abs(grid.p)
    edge = 0.24 * (4.6 - q) - side - 0.05
    field = np.maximum(outline - 0.02, edge)
    _paint_shadow(canvas, grid, field, 0.4, 0.06)
    canvas.paint(grid, field, _lit(_pattern(grid, outfit), light), classes.CLOTH)
    notch = 0.16 * np.exp(-np.square((q - 2.6) / 0.07))
    lapel = np.maximum(field, -edge - 0.36 * fields.smoothstep(4.5 - q, 0.0, 1.6) + notch)
    _paint_shadow(canvas, grid, lapel, 0.35, 0.04)
    lapel = np.maximum(lapel, 1.5 - q)
    canvas.paint(grid, lapel, _lit(outfit.colours[0], 1.08 * light), classes.CLOTH)


def _paint_collar(
    canvas: Canvas, grid: Grid, build: Build, outfit: Outfit, light: np.ndarray
) -> None:
    """Paints the two flaps of a shirt's collar."""
    side, q = np.abs(grid.p), grid.q
    colour = outfit.colours[3] if outfit.kind == "jacket" else outfit.colours[0]
    inner = (outfit.depth - q) * 0.42 - side
    lower = (
        q
        - outfit.depth
        - 0.2
        + 0.75 * np.maximum(side - 0.22, 0.0)
        + 1.1 * np.maximum(0.22 - side, 0.0)
    )
    flap = np.maximum(np.maximum(inner, lower), 1.32 + 0.12 * side - q)
    flap = np.maximum(flap, side - 0.72)
    # It lies on the shoulders and around the neck.
    flap = np.maximum(flap, np.minimum(build.outline(grid) - 0.05, side - build.neck - 0.07))
    _paint_shadow(canvas, grid, flap, 0.4, 0.04)
    canvas.paint(grid, flap, _lit(colour, np.minimum(1.06 * light, 1.2)), classes.CLOTH)


def _neckline(grid: Grid, outfit: Outfit) -> np.ndarray:
    """Returns a field that is negative above and inside the neckline."""
    side, q = np.abs(grid.p), grid.q
    if outfit.kind == "v_neck":
        return np.maximum(side - 0.42 * (outfit.depth - q), q - outfit.depth) * 0.9
    width = 1.15 if outfit.kind == "dress" else 0.52
    return fields.ellipse(side, q - 1.3, width, outfit.depth - 1.3)


def _cloth(grid: Grid, build: Build, outfit: Outfit) -> np.ndarray:
    """Returns the cloth's colours, (3, H, W)."""
    colour = _pattern(grid, outfit)
    if not outfit.sleeves:
        return colour
    seam = build.shoulder - 0.45 - 0.12 * (grid.q - 1.8)
    weight = np.clip(0.5 + (np.abs(grid.p) - seam) * grid.unit, 0.0, 1.0)
    return colour + weight * (outfit.sleeve[:, None, None] - colour)


def _pattern(grid: Grid, outfit: Outfit) -> np.ndarray:
    first, second = outfit.colours[:2, :, None, None]
    p, q = grid.p, grid.q
    hoops, stripes = (np.sin(2.0 * np.pi * x / outfit.scale) for x in (q, p))
    sharp = outfit.scale * grid.unit / 6.0
    if outfit.pattern == "hoops":
        weight = np.clip(0.5 + sharp * hoops, 0.0, 1.0)
    elif outfit.pattern == "stripes":
        weight = np.clip(0.5 + sharp * (stripes - 0.6), 0.0, 1.0)
    elif outfit.pattern == "checks":
        weight = 0.5 * (np.clip(0.5 + sharp * hoops, 0, 1) + np.clip(0.5 + sharp * stripes, 0, 1))
    elif outfit.pattern == "dots":
        weight = np.clip(0.5 + sharp * (hoops + stripes - 1.4), 0.0, 1.0)
    elif outfit.pattern == "print" and outfit.kind not in ("shirt", "jacket"):
        logo = fields.superellipse(p, q - 3.0, 0.7, 0.8 * outfit.scale + 0.1, 3.0)
        weight = np.clip(0.5 - logo * grid.unit, 0.0, 1.0)
    else:
        weight = np.zeros(grid.shape, np.float32)
    return first + weight * (second - first)


def _light(grid: Grid, build: Build, outfit: Outfit, lamp: Lamp) -> np.ndarray:
    """Returns the light on trunk and arms, with folds."""
    side, q = np.abs(grid.p), grid.q
    rng = np.random.default_rng(outfit.seed)
    round_ = np.maximum(1.0 - np.square(side / (1.15 * build.shoulder)), 0.04)
    height = 0.8 * np.sqrt(round_) + 0.15 * fields.smoothstep(q, 1.2, 3.2)
    height += 0.05 * noise.plane(rng, (9, 7), grid.shape)
    height += 0.02 * noise.plane(rng, (16, 22), grid.shape)
    light, _ = lamp.shade(height, grid.unit)
    # Between trunk and arm.
    crease = build.shoulder - 0.48 + 0.04 * np.sin(2.0 * q) - side
    depth = fields.smoothstep(q, 2.6, 3.6)
    light *= 1.0 - 0.5 * depth * np.exp(-np.square(crease / 0.09))
    # Folds that run from the armpit to the chest.
    fold = np.sin(7.0 * (side + 0.9 * q) + 2.0 * noise.plane(rng, (5, 5), grid.shape))
    light *= 1.0 + 0.08 * fold * fields.bump(side - build.shoulder + 0.6, q - 2.8, 0.4, 0.5)
    # In the shadow of the head.
    light *= 1.0 - 0.3 * fields.bump(side, q - 1.4, 0.6, 0.35)
    return np.clip(light, 0.15, 1.25)


def _lit(colour: np.ndarray, light: np.ndarray) -> np.ndarray:
    lit = shaded(colour, light) if colour.ndim == 1 else colour * light
    return np.clip(lit, 0.0, 1.0)


def _paint_shadow(
    canvas: Canvas, grid: Grid, field: np.ndarray, amount: float, reach: float
) -> None:
    """Darkens skin and clothes around a shape that is painted next."""
    near = np.exp(-np.maximum(field, 0.0) / reach)
    on_person = canvas.label[grid.rows, grid.columns] != classes.BACKGROUND
    canvas.darken(grid, amount * near * on_person)
