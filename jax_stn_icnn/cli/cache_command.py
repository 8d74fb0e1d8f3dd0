"""`stn-icnn cache`: shows the cache of compiled programs, and clears it."""

import argparse

from jax_stn_icnn.compilation import cache


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """Adds the arguments of `stn-icnn cache` to those of the command."""
    parser = commands.add_parser("cache", help="show or clear the cache of compiled programs")
    parser.set_defaults(run=run)
    parser.add_argument("--clear", action="store_true", help="remove all cached programs")


def run(args: argparse.Namespace) -> int:
    """Prints where programs are cached and how many; removes them with `--clear`.

    Raises:
        OSError: A file cannot be removed.
    """
    directory, files = cache.list_entries()
    size = sum(file.stat().st_size for file in files)
    if args.clear:
        for file in files:
            file.unlink(missing_ok=True)
    found = f"{len(files)} cached programs and functions, {size / 1e6:.1f} MB"
    print(f"{directory or 'no cache'}: {found}" + (", removed" if args.clear else ""))
    return 0
