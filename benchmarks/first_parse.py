"""Parses a photo as the first thing that a process does, and says when the parse was there.

python -m benchmarks.first_parse DIR     # compiled programs being kept in DIR; "" keeps none
"""

import sys

from benchmarks import process
from jax_stn_icnn import FaceParser
from jax_stn_icnn.compilation.cache import enable_cache


def main() -> None:
    """Parses it."""
    enable_cache(sys.argv[1])
    FaceParser.load()(process.ROOT / "docs/photo.jpg")
    process.say(process.age())


if __name__ == "__main__":
    main()
