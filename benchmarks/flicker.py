"""Measures how many labels of a still face change from frame to frame, parsed singly and tracked.

    python -m benchmarks.flicker [PHOTO...] [--sigma 8] [--frames 20]

Each frame is the photo, or a drawn portrait, with other noise. Printed are the mean share of pixels
whose label changes, of all pixels and of those of people, and the speed in frames per second.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence

import numpy as np

from jax_stn_icnn import FaceParser
from jax_stn_icnn.inference.results import PhotoResult
from jax_stn_icnn.photos.reading import to_rgb
from tfds_builders.synthetic_faces.portrait import draw_portrait


def shares(labels: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns the mean share of pixels whose labels change, of all pixels and of people's."""
    changes = [(one != other, (one > 0) | (other > 0)) for one, other in itertools.pairwise(labels)]
    of_all = np.mean([changed.mean() for changed, _ in changes])
    of_people = np.mean([changed.sum() / max(people.sum(), 1) for changed, people in changes])
    return float(of_all), float(of_people)


def measure(results: Iterator[PhotoResult]) -> str:
    """Returns a line with the shares and the speed, measured from the first result on."""
    labels = [next(results).labels]
    start = time.perf_counter()
    labels += [result.labels for result in results]
    speed = (len(labels) - 1) / (time.perf_counter() - start)
    of_all, of_people = shares(labels)
    return f"{of_all:.3%} of all pixels, {of_people:.3%} of people's, {speed:.2f} frames/s"


def main() -> None:
    """Runs the command."""
    command = argparse.ArgumentParser(description="Measures how many labels flicker.")
    command.add_argument("photos", nargs="*", help="by default a drawn portrait")
    command.add_argument("--sigma", type=float, default=8, help="of the noise, of 255")
    command.add_argument("--frames", type=int, default=20)
    args = command.parse_args()
    parser = FaceParser.load()
    for photo in args.photos or [None]:
        image = draw_portrait("test", 3).image if photo is None else to_rgb(photo)
        noise = np.random.default_rng(0).normal(0, args.sigma, (args.frames, *image.shape))
        frames = np.clip(image + noise, 0, 255).astype(np.uint8)
        list(parser.stream(frames[:1]))  # compiles the networks
        print(photo or "drawn portrait")
        print("  single frames:", measure(parser.stream(frames)))
        print("  tracked:      ", measure(parser.track(frames)))


if __name__ == "__main__":
    main()
