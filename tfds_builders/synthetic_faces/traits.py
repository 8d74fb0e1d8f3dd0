"""The traits of one face: measures of its parts, its expression and its colours."""

import dataclasses

import numpy as np

from .pose import Grid


@dataclasses.dataclass(frozen=True)
class Traits:
    """Measures in face coordinates, colours as RGB in [0, 1]. Side 0 is the viewer's left."""

    width: float
    """Half the face's width at the cheekbones."""
    jaw: float
    """Exponent of the jaw's superellipse; larger is squarer."""
    chin: float
    """v of the chin's tip."""
    eye: tuple[float, float]
    """(u, v) of the right eye's centre."""
    eye_size: tuple[float, float]
    """Half the width, and two thirds of the height, of an open eye."""
    eye_slant: float
    """Angle by which the outer corner is raised, in radians."""
    lids: tuple[float, float]
    """Opening of each eye, from 0 to 1."""
    gaze: tuple[float, float]
    """Shift of the irises to the right and down, in units of `eye_size`."""
    brow: tuple[float, float]
    """(u, v) of the right brow's centre."""
    brow_size: tuple[float, float]
    """Half the length, and half the largest thickness."""
    brow_arch: float
    brow_slant: float
    nose: tuple[float, float]
    """v of the root and of the base."""
    nose_width: tuple[float, float]
    """Half the width of the bridge and of the wings."""
    mouth: float
    """v of the line between the lips."""
    mouth_width: float
    """Half the width of the mouth."""
    lips: tuple[float, float]
    """Thickness of the upper and the lower lip."""
    gape: float
    """Height of the inner mouth; 0 for a closed mouth."""
    smile: float
    """Half the height of the mouth's corners above its middle."""
    age: float
    """From 0 for smooth skin to 1 for deep lines."""
    feminine: bool
    """Whether the face may have make-up and has long lashes; otherwise it may have a beard."""
    skin: np.ndarray
    hair: np.ndarray
    lip_colour: np.ndarray
    iris: np.ndarray

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "Traits":
        """Samples a face."""
        feminine = bool(rng.random() < 0.5)
        darkness = rng.uniform()
        skin = _interpolate(_SKIN_TONES, darkness) * rng.uniform(0.95, 1.05, 3)
        age = float(rng.beta(1.2, 2.5))
        gape = 0.0 if rng.random() < 0.42 else float(0.045 + 0.2 * rng.beta(1.2, 2.2))
        eye_v = rng.uniform(-0.13, -0.05)
        raised = rng.normal(0.0, 0.015)
        return cls(
            width=rng.uniform(0.70, 0.79),
            jaw=rng.uniform(1.85, 2.1) if feminine else rng.uniform(1.95, 2.5),
            chin=rng.uniform(0.98, 1.06) + 0.55 * gape,
            eye=(rng.uniform(0.315, 0.355), eye_v),
            eye_size=(rng.uniform(0.17, 0.2), rng.uniform(0.075, 0.105)),
            eye_slant=rng.uniform(-0.08, 0.14),
            lids=_lids(rng),
            gaze=tuple(np.clip(rng.normal(0.0, (0.15, 0.06)), -0.4, 0.4).tolist()),
            brow=(rng.uniform(0.335, 0.375), eye_v - rng.uniform(0.22, 0.29) - raised),
            brow_size=(rng.uniform(0.235, 0.28), rng.uniform(0.04, 0.062)),
            brow_arch=rng.uniform(0.02, 0.085),
            brow_slant=rng.normal(-0.06, 0.06),
            nose=(rng.uniform(-0.15, -0.07), rng.uniform(0.31, 0.38)),
            nose_width=(rng.uniform(0.08, 0.1), rng.uniform(0.175, 0.24)),
            mouth=rng.uniform(0.585, 0.64),
            mouth_width=rng.uniform(0.27, 0.34),
            lips=(rng.uniform(0.075, 0.115), rng.uniform(0.095, 0.15)),
            gape=gape,
            smile=rng.normal(0.05, 0.035),
            age=age,
            feminine=feminine,
            skin=np.clip(skin, 0.0, 1.0).astype(np.float32),
            hair=_hair_colour(age, darkness, rng),
            lip_colour=_lip_colour(skin, feminine, rng),
            iris=_interpolate(_IRISES, rng.uniform(0.0, 1.0 - 0.6 * darkness)).astype(np.float32),
        )

    def face_field(self, grid: Grid) -> np.ndarray:
        """Returns the field of the face, including the forehead under the hair."""
        yaw, pitch = grid.pose.yaw, grid.pose.pitch
        # The chin moves further than the temples, because it is farther from the rotation axis.
        p = grid.p - 0.2 * yaw - 0.3 * yaw * np.clip(grid.q, 0.0, 1.0)
        q = grid.q - 0.8 * pitch
        # The width below is positive down to ten times the chin's distance.
        below = np.clip(q / self.chin, 0.0, 5.0)
        above = np.minimum(q, 0.0) / 1.15
        across = np.abs(p) / (self.width * (1.0 - 0.1 * below))
        dome = np.square(above) * (0.4 + 0.6 * np.square(above))
        return 0.4 * (across**self.jaw + below**self.jaw + dome - 1.0)


_SKIN_TONES = np.array(
    [
        (0.98, 0.83, 0.74),
        (0.94, 0.76, 0.65),
        (0.87, 0.67, 0.53),
        (0.76, 0.55, 0.41),
        (0.58, 0.39, 0.28),
        (0.45, 0.30, 0.225),
    ]
)
_HAIR_TONES = np.array(
    [
        (0.09, 0.08, 0.08),
        (0.16, 0.11, 0.08),
        (0.30, 0.20, 0.13),
        (0.42, 0.27, 0.15),
        (0.62, 0.44, 0.24),
        (0.80, 0.65, 0.42),
    ]
)
_RED_HAIR = np.array([0.55, 0.24, 0.10])
_GRAY_HAIR = np.array([0.68, 0.67, 0.66])
_IRISES = np.array([(0.17, 0.10, 0.06), (0.33, 0.20, 0.09), (0.38, 0.40, 0.22), (0.30, 0.47, 0.60)])


def _interpolate(tones: np.ndarray, amount: float) -> np.ndarray:
    """Interpolates between colours: the first at 0, the last at 1."""
    position = amount * (len(tones) - 1)
    low = min(int(position), len(tones) - 2)
    return tones[low] + (position - low) * (tones[low + 1] - tones[low])


def _lids(rng: np.random.Generator) -> tuple[float, float]:
    opening = rng.uniform(0.6, 1.0)
    kind = rng.random()
    if kind < 0.07:
        return 0.0, 0.0
    if kind < 0.10:
        return (opening, 0.0) if rng.random() < 0.5 else (0.0, opening)
    return opening, opening * rng.uniform(0.93, 1.0)


def _hair_colour(age: float, darkness: float, rng: np.random.Generator) -> np.ndarray:
    # Dyed hair may have any colour.
    palest = 1.0 if rng.random() < 0.15 else 1.0 - 0.75 * darkness
    colour = _interpolate(_HAIR_TONES, rng.uniform(0.0, palest))
    if rng.random() < 0.12 * palest:
        colour = _RED_HAIR
    gray = rng.uniform(0.4, 1.0) if rng.random() < max(age - 0.35, 0.0) * 1.5 else 0.0
    return (colour + gray * (_GRAY_HAIR - colour)).astype(np.float32)


def _lip_colour(skin: np.ndarray, feminine: bool, rng: np.random.Generator) -> np.ndarray:
    natural = skin * (0.86, 0.62, 0.62)
    makeup = np.array([rng.uniform(0.5, 0.85), rng.uniform(0.05, 0.3), rng.uniform(0.12, 0.35)])
    amount = rng.uniform(0.2, 0.9) if feminine and rng.random() < 0.6 else 0.0
    return np.clip(natural + amount * (makeup - natural), 0.0, 1.0).astype(np.float32)
