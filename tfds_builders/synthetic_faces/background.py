"""Paints the background, plain or textured, and the clothes."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from . import classes, noise
from .canvas import Canvas
from .lighting import shaded
from .pose import Grid

# Backgrounds are drawn at this size and resized, so that they do not depend on the image's size.
_SIDE = 256


def paint_background(canvas: Canvas, rng: np.random.Generator, heads: float = 0.15) -> None:
    """Fills the frame with a gradient, clouds, stripes, blurred lights, objects or other heads.

    Args:
      canvas: the canvas to paint on.
      rng: random number generator.
      heads: probability of other heads among the backgrounds that are not plain.
    """
    kinds = (_clouds, _stripes, _lights, _objects, _heads)
    weights = (0.45 - heads, 0.15, 0.2, 0.2, heads)
    picture = _gradient(rng)
    if rng.random() < 0.75:
        picture = kinds[rng.choice(len(kinds), p=weights)](picture, rng)
    scaled = picture.resize(canvas.label.shape[::-1], Image.Resampling.BILINEAR)
    canvas.image[:] = np.asarray(scaled, np.float32).transpose(2, 0, 1) / 255.0


def paint_clothes(canvas: Canvas, grid: Grid, rng: np.random.Generator) -> None:
    """Paints the shoulders in plain or striped clothes.

    Args:
      canvas: the canvas to paint on.
      grid: the grid of the full frame.
      rng: random number generator.
    """
    p, q = grid.p, grid.q
    slope = rng.uniform(0.15, 0.5)
    shoulders = 1.38 + slope * np.square(np.maximum(np.abs(p) - 0.3, 0.0)) - q
    sides = np.abs(p) - rng.uniform(1.4, 1.9)
    neckline = rng.uniform(0.1, 0.5)
    cut = neckline - np.sqrt(np.square(p) + 0.4 * np.square(q - 1.3))
    field = np.maximum(np.maximum(shoulders, sides), cut)
    light = 1.0 - 0.25 * np.square(p) + 0.08 * noise.plane(rng, (7, 7), grid.shape)
    if rng.random() < 0.3:
        light *= 1.0 + 0.2 * np.sign(np.sin(rng.uniform(15.0, 45.0) * (q + rng.normal() * p)))
    colour = shaded(np.array(_colour(rng), np.float32) / 255.0, light)
    canvas.paint(grid, field, np.clip(colour, 0.0, 1.0), classes.CLOTH)


def _gradient(rng: np.random.Generator) -> Image.Image:
    """Returns an interpolation between four corners of similar random colours."""
    corners = rng.uniform(20, 235) + rng.normal(0.0, 35.0, 3) + rng.normal(0.0, 18.0, (2, 2, 3))
    small = Image.fromarray(np.clip(corners, 0, 255).astype(np.uint8))
    return small.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)


def _clouds(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    cells = int(rng.integers(4, 40))
    clouds = noise.plane(rng, (cells, cells), (_SIDE, _SIDE))[..., np.newaxis]
    shift = rng.uniform(10.0, 45.0, 3) * clouds
    return Image.fromarray(np.clip(np.asarray(picture) + shift, 0, 255).astype(np.uint8))


def _stripes(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    draw = ImageDraw.Draw(picture)
    step, colour = int(rng.integers(6, 50)), _colour(rng)
    lean = int(rng.integers(-120, 120))
    for x in range(-120, _SIDE + 120, step):
        draw.line([(x, 0), (x + lean, _SIDE)], colour, width=max(step // 3, 1))
    return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 3.0))))


def _lights(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(8, 40))):
        x, y, r = rng.uniform(0, _SIDE), rng.uniform(0, _SIDE), rng.uniform(3, 28)
        draw.ellipse([x - r, y - r, x + r, y + r], _colour(rng))
    return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(2.0, 7.0))))


def _objects(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(4, 16))):
        x, y = rng.uniform(0, _SIDE, 2)
        w, h = rng.uniform(8, 110, 2)
        shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        shape([x - w / 2, y - h / 2, x + w / 2, y + h / 2], _colour(rng), outline=_colour(rng))
    return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 2.5))))


def _heads(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Draws blurred people in the distance, as faces that are not to be parsed."""
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(2, 6))):
        x, y, r = rng.uniform(0, _SIDE), rng.uniform(30, 200), rng.uniform(12, 30)
        light = rng.uniform(0.4, 1.0)
        skin = tuple(int(tone * light) for tone in (235, 185, 155))
        draw.rectangle([x - 1.6 * r, y + 1.2 * r, x + 1.6 * r, 2 * _SIDE], _colour(rng))
        draw.ellipse([x - 0.95 * r, y - 1.35 * r, x + 0.95 * r, y + r], (40, 28, 20))
        draw.ellipse([x - 0.8 * r, y - 0.95 * r, x + 0.8 * r, y + 1.2 * r], skin)
        for side in (-1, 1):
            eye = x + side * 0.35 * r
            draw.ellipse([eye - 0.14 * r, y - 0.1 * r, eye + 0.14 * r, y + 0.06 * r], (40, 25, 20))
        draw.ellipse([x - 0.3 * r, y + 0.6 * r, x + 0.3 * r, y + 0.75 * r], (150, 60, 60))
    return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.0, 3.0))))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    tone = rng.uniform(20.0, 235.0) + rng.normal(0.0, 40.0, 3)
    red, green, blue = np.clip(tone, 0, 255).astype(int).tolist()
    return red, green, blue
