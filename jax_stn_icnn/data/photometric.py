"""Photometric augmentation on the device: colour, occlusion, sharpness, noise and compression.

Every operation is a pure function of one image, floats (height, width, 3) in 0..1, and of its
parameters; `random_photometric` draws them, for each operation and example independently. The order
is that of a photo: occlusion, light, lens and resolution, sensor, compression. Labels stay, so that
the networks also learn to label what is occluded.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jax_stn_icnn.checks import check_same_batch, check_shape
from jax_stn_icnn.data import keys as keys_of
from jax_stn_icnn.data.augment import picture_mask
from jax_stn_icnn.data.config import AugmentConfig

# ITU-R BT.601: luminance, and the two colour differences of JPEG.
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_BLOCK = 8
# ITU-T T.81, annex K: the quantization tables of quality 50.
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
# Operations that draw an amount, in the order of their keys.
_OPERATIONS = (
    "grayscale",
    "colour",
    "gamma",
    "contrast",
    "occlusion",
    "blur",
    "resolution",
    "noise",
    "jpeg",
)
# Smallest width of an occlusion, as a share of its length.
_MIN_ASPECT = 0.2


def random_photometric(
    keys: jax.Array, frame: jax.Array, region: jax.Array, config: AugmentConfig
) -> jax.Array:
    """Applies random photometric operations to a batch.

    Args:
        keys: A key for each example, (batch,).
        frame: Floats (batch, height, width, 3).
        region: Thetas (batch, 2, 3) of the picture's rectangle in the frame; the padding around it
            stays black.
        config: The strengths of the operations.

    Returns:
        The frames, float32, not clipped.

    Raises:
        ValueError: Shapes do not match.
    """
    check_shape("frame", frame, ("batch", "height", "width", 3))
    if not config.is_photometric:
        return frame  # without a key
    check_same_batch(keys=keys, frame=frame, region=region)
    changed = jax.vmap(lambda key, image: _change_image(key, image, config))(keys, frame)
    return jnp.where(picture_mask(region, frame.shape[1:3])[..., None], changed, 0.0)


def _change_image(key: jax.Array, image: jax.Array, config: AugmentConfig) -> jax.Array:
    """Applies the operations whose strength is not 0 to one image."""
    own_keys = jax.random.split(jax.random.fold_in(key, keys_of.PHOTOMETRIC), len(_OPERATIONS))
    key_of = dict(zip(_OPERATIONS, own_keys, strict=True))

    def amount(name: str, shape: tuple[int, ...] = (), lowest: float = 0.0) -> jax.Array:
        """Draws from lowest * strength .. strength, or returns 0, each with probability 1/2."""
        applied, value = jax.random.split(key_of[name])
        drawn = jax.random.uniform(value, shape, minval=lowest) * getattr(config, name)
        return jnp.where(jax.random.bernoulli(applied), drawn, 0.0)

    def content_key(name: str) -> jax.Array:
        return jax.random.fold_in(key_of[name], keys_of.CONTENT)

    if config.occlusion:
        image = random_occlusion(content_key("occlusion"), image, amount("occlusion"))
    if config.gamma:
        image = adjust_gamma(image, jnp.exp(amount("gamma", lowest=-1)))
    if config.contrast:
        image = adjust_contrast(image, jnp.exp(amount("contrast", lowest=-1)))
    if config.colour:
        image = image * jnp.exp(amount("colour", (3,), lowest=-1))
    if config.grayscale:
        chosen = jax.random.bernoulli(key_of["grayscale"], config.grayscale)
        image = jnp.where(chosen, grayscale(image), image)
    if not (config.blur or config.resolution or config.noise or config.jpeg):
        return image
    factor, sigma = 2.0 ** amount("resolution"), amount("blur") * image.shape[0]
    image = downsample(image, factor, sigma)
    if config.noise:
        noise = jax.random.normal(content_key("noise"), image.shape)
        image = image + amount("noise") * noise
    if config.jpeg:
        image = jpeg(image, amount("jpeg"))
    return upsample(image, factor)


def grayscale(image: jax.Array) -> jax.Array:
    """Returns the image's luminance in all three channels."""
    return jnp.broadcast_to(image @ jnp.float32(_YCBCR[0])[:, None], image.shape)


def adjust_gamma(image: jax.Array, exponent: jax.Array) -> jax.Array:
    """Raises every value to a power; above 1 darkens, below 1 brightens.

    Args:
        image: Floats (height, width, 3).
        exponent: The power, a scalar above 0; 1 changes nothing.

    Returns:
        The image; values below 0, which noise may give, become 0 unless the power is 1.
    """
    return jnp.where(exponent == 1, image, jnp.maximum(image, 0.0) ** exponent)


def adjust_contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales every value's difference from the image's mean.

    Args:
        image: Floats (height, width, 3).
        factor: Factor of the differences from the mean over pixels and channels, a scalar; 1
            changes nothing.

    Returns:
        The image, not clipped.
    """
    mean = jnp.mean(image)
    return jnp.where(factor == 1, image, mean + factor * (image - mean))


def random_occlusion(key: jax.Array, image: jax.Array, side: jax.Array) -> jax.Array:
    """Occludes a rotated ellipse or rectangle near the middle of an image.

    Args:
        key: A random key.
        image: Floats (height, width, 3).
        side: Largest length of the shape, as a share of the image's height; 0 occludes nothing.

    Returns:
        The image, with one colour, or another place of itself mirrored, in the shape.
    """
    place, length, angle, corners, texture, tint, source = jax.random.split(key, 7)
    height, width = image.shape[:2]
    middle = jax.random.uniform(place, (2,), minval=0.2, maxval=0.8) * jnp.array([height, width])
    radii = jax.random.uniform(length, (2,), minval=_MIN_ASPECT) * side * height / 2
    rotation = jax.random.uniform(angle, maxval=jnp.pi)
    down = jnp.arange(height)[:, None] - middle[0]
    right = jnp.arange(width) - middle[1]
    cos, sin = jnp.cos(rotation), jnp.sin(rotation)
    a = jnp.abs(cos * right + sin * down) / jnp.maximum(radii[0], 1e-6)
    b = jnp.abs(cos * down - sin * right) / jnp.maximum(radii[1], 1e-6)
    distance = jnp.where(jax.random.bernoulli(corners), jnp.maximum(a, b), jnp.hypot(a, b))
    colour = jax.random.uniform(tint, (3,))
    shift = jax.random.randint(source, (2,), 0, min(height, width))
    elsewhere = jnp.roll(image[::-1], shift, axis=(0, 1))
    filling = jnp.where(jax.random.bernoulli(texture), colour, elsewhere)
    return jnp.where((distance <= 1)[..., None] & (side > 0), filling, image)


def downsample(image: jax.Array, factor: jax.Array, sigma: jax.Array) -> jax.Array:
    """Blurs an image, and downsamples it into the upper left corner of an image of its size.

    Args:
        image: Floats (height, width, 3).
        factor: Factor of the downsampling, at least 1.
        sigma: Standard deviation of the blur, in pixels.

    Returns:
        The image, sampled at the centres of cells of `factor` pixels; to the right of and below
        them, its last column and row repeat.
    """
    # The blur that prevents aliasing adds to that of the lens. Without both, the matrix is the
    # identity.
    spread = jnp.sqrt(jnp.square(sigma) + jnp.square(0.4) * (jnp.square(factor) - 1) + 1e-2)

    def matrix(length: int) -> jax.Array:
        centre = (jnp.arange(length) + 0.5) * factor - 0.5
        away = (jnp.arange(length) - jnp.minimum(centre, length - 1)[:, None]) / spread
        weight = jnp.exp(-jnp.square(away) / 2)
        return weight / jnp.sum(weight, axis=1, keepdims=True)

    return _resample(matrix(image.shape[0]), matrix(image.shape[1]), image)


def upsample(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns an image that `downsample` returned at its original resolution, bilinearly.

    Args:
        image: Floats (height, width, 3).
        factor: The factor of the downsampling, at least 1.

    Returns:
        The image, of the same shape.
    """

    def matrix(length: int) -> jax.Array:
        last = jnp.ceil(length / factor) - 1
        place = jnp.clip((jnp.arange(length) + 0.5) / factor - 0.5, 0, last)
        return jnp.maximum(1 - jnp.abs(place[:, None] - jnp.arange(length)), 0.0)

    return _resample(matrix(image.shape[0]), matrix(image.shape[1]), image)


def jpeg(image: jax.Array, level: jax.Array) -> jax.Array:
    """Applies the loss of JPEG compression, without chroma subsampling.

    Args:
        image: Floats (height, width, 3).
        level: Multiple of the quantization tables of quality 50; 0 loses nothing.

    Returns:
        The image.
    """
    height, width = image.shape[:2]
    padded = jnp.pad(image, ((0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // _BLOCK, padded.shape[1] // _BLOCK
    values = (padded @ jnp.float32(_YCBCR.T)).reshape(rows, _BLOCK, columns, _BLOCK, 3)
    cosines = jnp.float32(_cosine_transform())
    coefficients = jnp.einsum("ui,vj,aibjc->abcuv", cosines, cosines, values)
    tables = np.stack([_LUMINANCE, _CHROMINANCE, _CHROMINANCE]) / 255
    step = jnp.float32(tables) * jnp.maximum(level, 1e-3)
    # Luminance is coded relative to 128, which is not a multiple of every step.
    offset = jnp.zeros((3, _BLOCK, _BLOCK)).at[0, 0, 0].set(_BLOCK * 128 / 255)
    rounded = jnp.round((coefficients - offset) / step) * step + offset
    decoded = jnp.einsum("ui,vj,abcuv->aibjc", cosines, cosines, rounded).reshape(padded.shape)
    lossy = decoded @ jnp.float32(np.linalg.inv(_YCBCR).T)
    return jnp.where(level > 0, lossy[:height, :width], image)


def _cosine_transform() -> np.ndarray:
    """Returns the matrix of the orthonormal discrete cosine transform, (8, 8)."""
    frequency, place = np.arange(_BLOCK)[:, None], np.arange(_BLOCK) + 0.5
    matrix = np.cos(np.pi * frequency * place / _BLOCK) * np.sqrt(2 / _BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix


def _resample(down: jax.Array, across: jax.Array, image: jax.Array) -> jax.Array:
    """Applies a matrix to the rows and one to the columns of an image."""
    return jnp.einsum("yi,ijc,xj->yxc", down, image, across)
