"""Augmentation on the device towards photos as people take them: colour, sharpness, covers.

Every operation is a pure function of one image, floats (height, width, 3) in 0..1, and of its
parameters; `photometric` draws them, each operation apart and for every second example. They come
in the order in which a photo suffers them: covers, light, lens and size, sensor, compression.
Labels stay as they are: what is covered is still to be named.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.checks import check_same_batch, check_shape
from jax_stn_icnn.data import keys as keys_of
from jax_stn_icnn.data.augment import inside

# ITU-R BT.601: brightness, and the two colour differences of JPEG.
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_BLOCK = 8
# ITU-T T.81, annex K: what a JPEG of quality 50 divides its coefficients by.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMINANCE = np.full((_BLOCK, _BLOCK), 99)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# A cover is never thinner than this share of its length.
_THINNEST = 0.2


@dataclasses.dataclass(frozen=True)
class Strengths:
    """How strong each operation is at most; 0 leaves it out.

    Attributes:
        grayscale: the share of examples without colour.
        colour: logarithm of a channel's gain, either way: white balance and coloured light.
        gamma: logarithm of the exponent, either way.
        contrast: logarithm of the factor about the mean, either way.
        occlusion: side of a patch that covers some of the face, as a part of the frame's.
        blur: standard deviation of a Gaussian, as a part of the frame's side.
        resolution: base-2 logarithm of the factor by which the frame is shrunk for a while.
        noise: standard deviation, of the range 0..1, in the shrunk picture.
        jpeg: JPEG's quantisation in the shrunk picture, as a multiple of that of quality 50.
        rotation: degrees, either way, besides what `augment` does; it is `augment` that turns.
        zoom: logarithm of the scale, either way, likewise.
    """

    grayscale: float = 0.0
    colour: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    occlusion: float = 0.0
    blur: float = 0.0
    resolution: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0

    def __post_init__(self) -> None:
        """Checks that none is negative, and the share no more than 1."""
        for name, value in dataclasses.asdict(self).items():
            if value < 0 or (name == "grayscale" and value > 1):
                raise ValueError(
                    f"{name} is {value}, but must be at least 0, and a share at most 1"
                )


OFF = Strengths()


def photometric(
    keys: jax.Array, frame: jax.Array, region: jax.Array, strengths: Strengths
) -> jax.Array:
    """Makes photos of a batch of good pictures.

    Args:
        keys: one for each example, (batch,).
        frame: floats (batch, height, width, 3).
        region: thetas (batch, 2, 3) of the picture's rectangle in the frame; beyond, all is black.
        strengths: of the operations.

    Returns:
        The frames, float32, not clipped.

    Raises:
        ValueError: shapes do not fit.
    """
    check_shape("frame", frame, ("batch", "height", "width", 3))
    if dataclasses.replace(strengths, rotation=0.0, zoom=0.0) == OFF:
        return frame  # No key is needed.
    check_same_batch(keys=keys, frame=frame, region=region)
    changed = jax.vmap(lambda key, image: _one(key, image, strengths))(keys, frame)
    return jnp.where(inside(region, frame.shape[1:3])[..., None], changed, 0.0)


def _one(key: jax.Array, image: jax.Array, strengths: Strengths) -> jax.Array:
    """One example, by every operation that is wanted."""
    names = [field.name for field in dataclasses.fields(Strengths)]
    own = jax.random.fold_in(key, keys_of.PHOTO)
    streams = dict(zip(names, jax.random.split(own, len(names)), strict=True))

    def drawn(name: str, shape: tuple[int, ...] = (), lowest: float = 0.0) -> jax.Array:
        """Uniform in lowest * strength .. strength, or 0 for every second example."""
        on, values = jax.random.split(streams[name])
        amount = jax.random.uniform(values, shape, minval=lowest) * getattr(strengths, name)
        return jnp.where(jax.random.bernoulli(on), amount, 0.0)

    if strengths.occlusion:
        own = jax.random.fold_in(streams["occlusion"], keys_of.OWN)
        image = cover(own, image, drawn("occlusion"))
    if strengths.gamma:
        image = change_gamma(image, jnp.exp(drawn("gamma", lowest=-1)))
    if strengths.contrast:
        image = change_contrast(image, jnp.exp(drawn("contrast", lowest=-1)))
    if strengths.colour:
        image = image * jnp.exp(drawn("colour", (3,), lowest=-1))
    if strengths.grayscale:
        image = jnp.where(
            jax.random.bernoulli(streams["grayscale"], strengths.grayscale), grey(image), image
        )
    if not (strengths.blur or strengths.resolution or strengths.noise or strengths.jpeg):
        return image
    factor, sigma = 2.0 ** drawn("resolution"), drawn("blur") * image.shape[0]
    image = shrink(image, factor, sigma)
    if strengths.noise:
        own = jax.random.fold_in(streams["noise"], keys_of.OWN)
        image = image + drawn("noise") * jax.random.normal(own, image.shape)
    if strengths.jpeg:
        image = compress(image, drawn("jpeg"))
    return enlarge(image, factor)


def grey(image: jax.Array) -> jax.Array:
    """The image's brightness in all three channels."""
    return jnp.broadcast_to(image @ jnp.float32(_YCBCR[0])[:, None], image.shape)


def change_gamma(image: jax.Array, exponent: jax.Array) -> jax.Array:
    """Raises every value to a power: above 1 darkens, below 1 brightens.

    Args:
        image: the image, floats (height, width, 3).
        exponent: the power, a scalar above 0; 1 changes nothing.

    Returns:
        The image; values below 0 become 0, except where the power is 1.
    """
    # Noise may have carried values below 0, of which there are no powers.
    return jnp.where(exponent == 1, image, jnp.maximum(image, 0.0) ** exponent)


def change_contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Moves every value away from the image's mean, or towards it.

    Args:
        image: the image, floats (height, width, 3).
        factor: by which distances from the mean over pixels and channels grow, a scalar; 1 changes
            nothing.

    Returns:
        The image, not clipped.
    """
    mean = jnp.mean(image)
    return jnp.where(factor == 1, image, mean + factor * (image - mean))


def cover(key: jax.Array, image: jax.Array, side: jax.Array) -> jax.Array:
    """Covers a turned ellipse or rectangle, somewhere in the middle, with something else.

    Args:
        key: a random key.
        image: the image.
        side: its length at most, as a part of the image's height; 0 covers nothing.

    Returns:
        The image, where covered either one colour or another place of itself, mirrored.
    """
    place, length, angle, corners, texture, tint, source = jax.random.split(key, 7)
    height, width = image.shape[:2]
    middle = jax.random.uniform(place, (2,), minval=0.2, maxval=0.8) * jnp.array([height, width])
    radii = jax.random.uniform(length, (2,), minval=_THINNEST) * side * height / 2
    turn = jax.random.uniform(angle, maxval=jnp.pi)
    down = jnp.arange(height)[:, None] - middle[0]
    right = jnp.arange(width) - middle[1]
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    a = jnp.abs(cos * right + sin * down) / jnp.maximum(radii[0], 1e-6)
    b = jnp.abs(cos * down - sin * right) / jnp.maximum(radii[1], 1e-6)
    distance = jnp.where(jax.random.bernoulli(corners), jnp.maximum(a, b), jnp.hypot(a, b))
    colour = jax.random.uniform(tint, (3,))
    shift = jax.random.randint(source, (2,), 0, min(height, width))
    elsewhere = jnp.roll(image[::-1], shift, axis=(0, 1))
    filling = jnp.where(jax.random.bernoulli(texture), colour, elsewhere)
    return jnp.where((distance <= 1)[..., None] & (side > 0), filling, image)


def shrink(image: jax.Array, factor: jax.Array, sigma: jax.Array) -> jax.Array:
    """Blurs, and shrinks into the upper left corner of an image of the same size.

    Args:
        image: the image.
        factor: by which it becomes smaller, at least 1.
        sigma: standard deviation of the blur, in pixels.

    Returns:
        The image, at the centres of cells of `factor` pixels; beyond its edges it is continued.
    """
    # The blur that keeps a shrunk picture from aliasing adds to that of the lens. Without either
    # the matrix is the identity.
    spread = jnp.sqrt(jnp.square(sigma) + jnp.square(0.4) * (jnp.square(factor) - 1) + 1e-2)

    def matrix(length: int) -> jax.Array:
        centre = (jnp.arange(length) + 0.5) * factor - 0.5
        away = (jnp.arange(length) - jnp.minimum(centre, length - 1)[:, None]) / spread
        weight = jnp.exp(-jnp.square(away) / 2)
        return weight / jnp.sum(weight, axis=1, keepdims=True)

    return _apply(matrix(image.shape[0]), matrix(image.shape[1]), image)


def enlarge(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Undoes the size of `shrink`, bilinear.

    Args:
        image: of `shrink`, floats (height, width, 3).
        factor: the one that it was shrunk by, at least 1.

    Returns:
        The image, of the same shape.
    """

    def matrix(length: int) -> jax.Array:
        last = jnp.ceil(length / factor) - 1
        place = jnp.clip((jnp.arange(length) + 0.5) / factor - 0.5, 0, last)
        return jnp.maximum(1 - jnp.abs(place[:, None] - jnp.arange(length)), 0.0)

    return _apply(matrix(image.shape[0]), matrix(image.shape[1]), image)


def compress(image: jax.Array, level: jax.Array) -> jax.Array:
    """Loses what a JPEG loses, colour at full resolution.

    Args:
        image: the image.
        level: what is lost, as a multiple of what quality 50 loses; 0 loses nothing.

    Returns:
        The image.
    """
    height, width = image.shape[:2]
    padded = jnp.pad(image, ((0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // _BLOCK, padded.shape[1] // _BLOCK
    values = (padded @ jnp.float32(_YCBCR.T)).reshape(rows, _BLOCK, columns, _BLOCK, 3)
    cosines = jnp.float32(_cosines())
    coefficients = jnp.einsum("ui,vj,aibjc->abcuv", cosines, cosines, values)
    tables = np.stack([_LUMINANCE, _CHROMINANCE, _CHROMINANCE]) / 255
    step = jnp.float32(tables) * jnp.maximum(level, 1e-3)
    # Brightness is coded about its middle, which is a whole number of no step.
    middle = jnp.zeros((3, _BLOCK, _BLOCK)).at[0, 0, 0].set(_BLOCK * 128 / 255)
    rounded = jnp.round((coefficients - middle) / step) * step + middle
    back = jnp.einsum("ui,vj,abcuv->aibjc", cosines, cosines, rounded).reshape(padded.shape)
    lossy = back @ jnp.float32(np.linalg.inv(_YCBCR).T)
    return jnp.where(level > 0, lossy[:height, :width], image)


def _cosines() -> np.ndarray:
    """The matrix of the orthonormal cosine transform: coefficients of values, (8, 8)."""
    frequency, place = np.arange(_BLOCK)[:, None], np.arange(_BLOCK) + 0.5
    matrix = np.cos(np.pi * frequency * place / _BLOCK) * np.sqrt(2 / _BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix


def _apply(down: jax.Array, across: jax.Array, image: jax.Array) -> jax.Array:
    """A matrix over the rows and one over the columns of an image."""
    return jnp.einsum("yi,ijc,xj->yxc", down, image, across)
