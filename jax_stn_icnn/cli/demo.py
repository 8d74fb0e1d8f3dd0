"""Serves the page that parses photos in a browser, on this machine only.

The page consists of static files, which `page/` builds into this package; photos stay in the
browser.
"""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FILES = Path(__file__).parent / "page_files"
PORT = 8000


def server(files: Path = FILES, port: int = PORT) -> ThreadingHTTPServer:
    """Creates a server of the page.

    Args:
        files: folder of the built page.
        port: port on this machine; 0 uses any free port.

    Returns:
        The listening server; its `serve_forever` handles requests.

    Raises:
        FileNotFoundError: the page has not been built.
        OSError: the port is in use or not allowed.
    """
    if not (files / "index.html").is_file():
        raise FileNotFoundError(
            f"there is no page in {files}: this installation lacks it. Build it in a checkout with "
            "`pip install -e '.[onnx]' && cd page && npm ci && npm run build`"
        )
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=str(files)))
    except (OSError, OverflowError) as error:
        raise OSError(
            f"the page cannot be served at port {port} ({error}): name another with --port"
        ) from error


class _Handler(SimpleHTTPRequestHandler):
    """Serves files with the headers that allow the page to use several threads."""

    # Explicit, because the types of these suffixes differ between machines.
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".onnx": "application/octet-stream",
        ".svg": "image/svg+xml",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        # A rebuilt page replaces the one in the browser's cache.
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        try:
            super().copyfile(source, outputfile)
        except ConnectionError:  # The visitor has left the page.
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Logs nothing: the browser shows errors."""
