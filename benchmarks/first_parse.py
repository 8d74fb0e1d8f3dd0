"""Parses a photo in a new process and reports the seconds from the process's start.

python -m benchmarks.first_parse DIR     # DIR caches compiled programs; "" disables the cache
"""

import sys

from benchmarks import process
from jax_stn_icnn import FaceParser
from jax_stn_icnn.compilation.cache import enable_cache


def main() -> None:
    """Runs the command."""
    enable_cache(sys.argv[1])
    FaceParser.load()(process.ROOT / "docs/photo.jpg")
    process.report(process.age())


if __name__ == "__main__":
    main()
