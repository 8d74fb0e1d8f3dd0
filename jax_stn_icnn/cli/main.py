"""The command `stn-icnn`: parses photos and videos into files, exports the parser, serves the page.

    stn-icnn parse PHOTO_OR_FOLDER... --out DIR [--masks NAMES] [--recursive] [--ckpt PATH]
    stn-icnn parse PHOTO_OR_FOLDER... --out DIR --ray [ADDRESS]    # on a Ray cluster
    stn-icnn export --format onnx|stablehlo --out FILE [--ckpt PATH]    # for other runtimes
    stn-icnn demo [--port PORT]    # serves the page that parses photos in a browser
    stn-icnn cache [--clear]    # shows or clears the cache of compiled programs

Compiled programs are cached in `~/.cache/jax_stn_icnn`, or in JAX_COMPILATION_CACHE_DIR.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jax_stn_icnn.cli import arguments, demo, parse
from jax_stn_icnn.cli.parse import INTERRUPTED
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.io import weights


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 1 if anything failed."""
    args = arguments.make_parser(parse.run, _export, _serve).parse_args(argv)
    try:
        status: int = args.run(args)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return status


def _export(args: argparse.Namespace) -> int:
    """Writes the parser for other runtimes."""
    from jax_stn_icnn.io import export

    cache.enable_cache(None)
    out = Path(args.out)
    loaded = weights.load_weights(weights.weights_file(args.ckpt))
    agreement = export.write(loaded, out, args.format)
    size = out.stat().st_size / 1e6
    print(f"{out}: {size:.1f} MB, labels equal to the parser's on {agreement:.5f} of the pixels")
    return 0


def _serve(args: argparse.Namespace) -> int:
    """Serves the page until it is interrupted."""
    with demo.server(port=args.port) as server:
        print(f"The page is at http://localhost:{server.server_port}/; Ctrl+C ends it.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
