import threading
import urllib.error
import urllib.request

import pytest

from jax_stn_icnn.cli import demo, main


@pytest.fixture
def address(tmp_path):
    """Serves a page of three files; returns its address."""
    (tmp_path / "index.html").write_text("<p>page")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "runtime.wasm").write_bytes(b"\0asm")
    (tmp_path / "network.onnx").write_bytes(b"network")
    with demo.server(tmp_path, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "path, kind, content",
    [
        ("/", "text/html", b"<p>page"),
        ("/assets/runtime.wasm", "application/wasm", b"\0asm"),
        ("/network.onnx", "application/octet-stream", b"network"),
    ],
)
def test_files_are_served_with_the_headers_for_threads(address, path, kind, content):
    with urllib.request.urlopen(address + path) as response:
        assert response.read() == content
        headers = response.headers
    assert headers["Content-Type"].startswith(kind)
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


@pytest.mark.parametrize("path", ["/missing.js", "/../test_demo.py", "/%2e%2e/test_demo.py"])
def test_other_paths_are_not_found(address, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + path)


def test_the_command_serves_until_interrupted(monkeypatch, tmp_path, capsys):
    (tmp_path / "index.html").write_text("<p>page")
    server = demo.server(tmp_path, port=0)

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "serve_forever", interrupt)
    monkeypatch.setattr(demo, "server", lambda port: server)
    assert main.main(["demo"]) == 0
    assert f"http://localhost:{server.server_port}/" in capsys.readouterr().out
    assert server.socket.fileno() == -1  # closed


def test_a_missing_page_is_an_error(monkeypatch, tmp_path, capsys):
    server = demo.server
    monkeypatch.setattr(demo, "server", lambda port: server(tmp_path, port))
    assert main.main(["demo"]) == 1
    assert "npm run build" in capsys.readouterr().err


def test_a_port_in_use_is_an_error(monkeypatch, tmp_path, capsys):
    (tmp_path / "index.html").write_text("<p>page")
    server = demo.server
    monkeypatch.setattr(demo, "server", lambda port: server(tmp_path, port))
    with server(tmp_path, port=0) as first:
        for port in (first.server_port, 70_000):
            assert main.main(["demo", "--port", str(port)]) == 1
            assert "--port" in capsys.readouterr().err
