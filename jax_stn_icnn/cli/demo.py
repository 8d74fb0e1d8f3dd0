"""The page that parses photos in a browser, served on this machine.

The page is made of files only, which `page/` builds into this package; nothing of a photo ever
comes here.
"""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FILES = Path(__file__).parent / "page_files"
PORT = 8000


def server(files: Path = FILES, port: int = PORT) -> ThreadingHTTPServer:
    """Makes a server of the page, for this machine only.

    Args:
        files: the folder of the built page.
        port: where it listens; 0 takes any that is free.

    Returns:
        The server, which listens; `serve_forever` answers.

    Raises:
        FileNotFoundError: the page has not been built.
        OSError: the port is taken, or not allowed.
    """
    if not (files / "index.html").is_file():
        raise FileNotFoundError(
            f"there is no page in {files}: this installation was made without it. In a checkout, "
            "build it by `pip install -e '.[onnx]' && cd page && npm ci && npm run build`"
        )
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=str(files)))
    except (OSError, OverflowError) as error:
        raise OSError(
            f"the page cannot be served at port {port} ({error}): name another by --port"
        ) from error


class _Handler(SimpleHTTPRequestHandler):
    """Serves files with the headers that let the page use several threads."""

    # Said here, for what a machine says of these endings differs.
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
        # A page built anew is shown anew.
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        try:
            super().copyfile(source, outputfile)
        except ConnectionError:  # The visitor has left the page, which is no fault.
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Says nothing: the browser shows what went wrong."""
