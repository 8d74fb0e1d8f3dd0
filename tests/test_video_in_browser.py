"""Chromium plays what the command writes for videos."""

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from video_clips import write_clip

from jax_stn_icnn.cli import video
from jax_stn_icnn.cli.outputs import Outputs

CHROMIUM = shutil.which("chromium")
# Plays a video muted, which needs no click, and reports what the browser decoded. `webkit...`
# counts bytes of sound; the canvas tells whether pixels are transparent.
PAGE = """<!doctype html><video muted playsinline src="FILE"></video><script>
const video = document.querySelector("video");
const report = (content) => fetch("/report", {method: "POST", body: JSON.stringify(content)});
video.onerror = () => report({error: video.error.message});
video.ontimeupdate = () => {
  if (video.currentTime < 0.5) return;
  video.ontimeupdate = null;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  report({
    time: video.currentTime, duration: video.duration,
    width: video.videoWidth, height: video.videoHeight,
    frames: video.getVideoPlaybackQuality().totalVideoFrames,
    sound: video.webkitAudioDecodedByteCount,
    opacities: [...new Set(pixels.filter((_, i) => i % 4 === 3))],
  });
};
video.play();
</script>"""


@pytest.fixture
def play(tmp_path):
    """Returns a function that plays a file in Chromium and returns what the page reports."""
    if CHROMIUM is None:
        pytest.skip("needs chromium: page/install.sh installs it")
    reports, reported = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = tmp_path / self.path.lstrip("/")
            self.send_response(200 if path.is_file() else 404)
            self.end_headers()
            if path.is_file():
                self.wfile.write(path.read_bytes())

        def do_POST(self):
            reports.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            reported.set()

        def log_message(self, *given):
            pass

    def play(name):
        reported.clear()
        (tmp_path / "page.html").write_text(PAGE.replace("FILE", name))
        address = f"http://localhost:{server.server_port}/page.html"
        options = ["--headless=new", "--no-sandbox", f"--user-data-dir={tmp_path / 'profile'}"]
        browser = subprocess.Popen([CHROMIUM, *options, address], stderr=subprocess.DEVNULL)
        try:
            assert reported.wait(120), "the video does not play"
        finally:
            browser.kill()
            browser.wait()
        return reports[-1]

    with ThreadingHTTPServer(("localhost", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield play
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "sound"), [("mp4", "aac"), ("avi", "pcm_s16le")])
def test_videos_play_in_chromium(play, small_parser, tmp_path, suffix, sound):
    frames = np.random.default_rng(0).integers(0, 256, (15, 6, 8, 3), np.uint8)
    frames = frames.repeat(8, 1).repeat(8, 2)
    clip = tmp_path / f"clip.{suffix}"
    codec = {"codec": "mjpeg", "pixels": "yuvj420p"} if suffix == "avi" else {}
    write_clip(clip, frames, sound=sound, **codec)
    options = {"detect": False, "batch_size": 1}
    video.parse_video(small_parser, clip, clip, Outputs(cutout=True), "", options)
    played = play(f"{clip.name}.overlay.mp4")
    assert (played["width"], played["height"]) == (64, 48)
    assert played["frames"] > 3 and played["sound"] > 0
    assert played["duration"] == pytest.approx(1.5, abs=0.1)
    played = play(f"{clip.name}.cutout.webm")
    assert (played["width"], played["height"]) == (64, 48)
    assert min(played["opacities"]) < 50 and max(played["opacities"]) > 200
