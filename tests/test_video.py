"""Videos: how they are read, what the command writes for them, and when it parses them again."""

import builtins
import errno
import io
import itertools
import json
import os
import resource
from contextlib import redirect_stderr
from fractions import Fraction

import numpy as np
import pytest
from video_clips import read_clip, sound_of, write_clip

from jax_stn_icnn.anatomy import DATA_SETS, NINE, DataSet
from jax_stn_icnn.cli import main, video, video_file
from jax_stn_icnn.cli.outputs import Outputs, make_result_test
from jax_stn_icnn.cli.video_file import VideoFile
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.photos.video import Video

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)


@pytest.fixture
def command(monkeypatch, small_parser):
    """Returns a function that runs the command with the small parser."""
    monkeypatch.setattr(cache, "enable_cache", lambda _: None)
    monkeypatch.setattr(FaceParser, "load", lambda path, **_: small_parser)
    return lambda *given: main.main(["parse", *map(str, given), "--no-detect", "--batch", "1"])


def read(path, on_sound=lambda packet: None):
    with Video(path) as opened:
        return [
            (frame.image, float(frame.pts * opened.time_base)) for frame in opened.frames(on_sound)
        ]


class TestReading:
    def test_times_of_frames_at_a_variable_rate(self, tmp_path):
        write_clip(tmp_path / "clip.mp4", FRAMES, times=[0, 1, 4, 5, 9])
        assert [time for _, time in read(tmp_path / "clip.mp4")] == [0, 0.1, 0.4, 0.5, 0.9]

    @pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, 3), (180, 2), (None, 0)])
    def test_frames_are_rotated_as_viewers_show_them(self, tmp_path, rotation, turns):
        path = tmp_path / "clip.mp4"
        write_clip(path, FRAMES, rotation=rotation)
        upright = read_clip(path)[0][2]
        np.testing.assert_array_equal(read(path)[2][0], np.rot90(upright, turns))

    def test_what_is_not_a_video_is_named(self, tmp_path):
        (tmp_path / "bad.mp4").write_bytes(b"not a video")
        # FFmpeg would read a list of other files.
        (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile clip.mkv\n")
        write_clip(tmp_path / "clip.mkv", FRAMES)
        for name in ("bad.mp4", "list.mp4"):
            with pytest.raises(ValueError, match=f"{name} is not a video"):
                Video(tmp_path / name)

    def test_a_damaged_packet_is_left_out(self, tmp_path):
        path = tmp_path / "clip.avi"
        write_clip(path, FRAMES, codec="png", pixels="rgb24")
        content = path.read_bytes()
        start = [i for i in range(len(content)) if content.startswith(b"\x89PNG", i)][2]
        # The sides in its header.
        path.write_bytes(content[: start + 16] + bytes(8) + content[start + 24 :])
        with Video(path) as opened:
            images = [frame.image for frame in opened.frames(lambda packet: None)]
            assert opened.num_damaged == 1
        np.testing.assert_array_equal(images, FRAMES[[0, 1, 3, 4]])

    def test_without_the_extra_an_error_names_it(self, command, tmp_path, monkeypatch, capsys):
        write_clip(tmp_path / "clip.mp4", FRAMES)
        real = builtins.__import__

        def without_av(name, *given, **options):
            if name == "av":
                raise ImportError(name)
            return real(name, *given, **options)

        monkeypatch.setattr(builtins, "__import__", without_av)
        assert command(tmp_path / "clip.mp4", "--out", tmp_path / "out") == 1
        assert (
            "clip.mp4 is a video, which needs the extra video: pip install"
            in capsys.readouterr().err
        )


@pytest.fixture(scope="module")
def parsed(small_parser, tmp_path_factory):
    """A video of odd sides with sound, the folder of its results, and what the command printed."""
    folder = tmp_path_factory.mktemp("video")
    clip, out = folder / "clip.mkv", folder / "out"
    odd = FRAMES[:, :47, :61]
    write_clip(clip, odd, times=[0, 1, 4, 5, 9], codec="ffv1", pixels="bgr0", sound="aac")
    options = ["--masks", "nose,lips", "--soft", "--cutout", "--per-face", "--no-detect"]
    options += ["--batch", "1"]  # as the parser is compiled
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()) as printed:
        patch.setattr(cache, "enable_cache", lambda _: None)
        patch.setattr(FaceParser, "load", lambda path, **_: small_parser)
        assert main.main(["parse", str(clip), "--out", str(out), *options]) == 0
    return clip, out, printed.getvalue()


class TestFiles:
    def test_of_a_video(self, parsed, small_parser):
        _, out, printed = parsed
        expected = [small_parser(frame, detect=False) for frame in FRAMES[:, :47, :61]]
        times = [0, 0.1, 0.4, 0.5, 0.9]
        overlays, written = read_clip(out / "clip.mkv.overlay.mp4")
        assert overlays.shape == (5, 48, 62, 3) and written == times
        for overlay, result in zip(overlays, expected, strict=True):
            error = overlay[:47, :61].astype(int) - result.overlay()
            assert np.abs(error).mean() < 12  # colours at half the resolution
        streams = {
            "labels": lambda result: result.labels,
            "nose": lambda result: result.mask("nose") * 255,
            "lips": lambda result: result.mask("lips") * 255,
            "lips.soft": lambda result: np.round(result.soft_mask("lips") * 255),
        }
        for name, draw in streams.items():
            frames, written = read_clip(out / f"clip.mkv.{name}.mkv", "gray")
            assert written == times
            np.testing.assert_array_equal(frames, [draw(result) for result in expected])
        cutouts, written = read_clip(out / "clip.mkv.cutout.webm", "rgba", "libvpx-vp9")
        assert written == times
        opacity = [result.cutout()[..., 3].astype(int) for result in expected]
        assert np.abs(cutouts[..., 3] - opacity).mean() < 6
        assert "padded from 61 x 47 to 62 x 48" in printed
        assert "--per-face and --format coco apply to photos only" in printed

    def test_the_json_has_the_faces_of_each_frame(self, parsed, small_parser):
        _, out, _ = parsed
        content = json.loads((out / "clip.mkv.json").read_text())
        assert (content["width"], content["height"]) == (61, 47)
        assert content["classes"] == list(small_parser.classes)
        assert [frame["time"] for frame in content["frames"]] == [0, 0.1, 0.4, 0.5, 0.9]
        for frame in content["frames"]:
            (face,) = frame["faces"]
            assert face["track"] == 0 and len(face["box"]) == 4

    def test_sound_is_copied(self, parsed):
        clip, out, _ = parsed
        assert sound_of(out / "clip.mkv.overlay.mp4") == sound_of(clip)

    def test_results_are_not_inputs(self, parsed):
        is_result = make_result_test()
        left = [path.name for path in parsed[1].iterdir() if not is_result(path)]
        assert sorted(left) == ["clip.mkv.json", "settings.json"]  # which are no photos

    @pytest.mark.parametrize(("suffix", "sound"), [("mkv", "ac3"), ("avi", "pcm_s16le")])
    def test_other_sound_becomes_aac(self, command, tmp_path, suffix, sound):
        path = tmp_path / f"clip.{suffix}"
        write_clip(path, FRAMES, codec="mjpeg", pixels="yuvj420p", sound=sound)
        assert command(path, "--out", tmp_path / "out") == 0
        codec, packets = sound_of(tmp_path / "out" / f"clip.{suffix}.overlay.mp4")
        assert codec == "aac" and len(packets) >= 0.5 * 48_000 / 1024

    def test_labels_in_the_ids_of_a_data_set(self, command, small_parser, tmp_path, monkeypatch):
        names = {f"their {name}": name for name in reversed(NINE.classes)}
        monkeypatch.setitem(DATA_SETS, "theirs", DataSet(names, framing="pad"))
        write_clip(tmp_path / "clip.mkv", FRAMES, codec="ffv1", pixels="bgr0")
        out = tmp_path / "out"
        assert command(tmp_path / "clip.mkv", "--out", out, "--ids", "theirs") == 0
        frames, _ = read_clip(out / "clip.mkv.labels.mkv", "gray")
        expected = [small_parser(frame, detect=False).labels_as("theirs") for frame in FRAMES]
        np.testing.assert_array_equal(frames, expected)

    def test_an_overlay_starts_before_it_is_loaded(self, command, tmp_path):
        write_clip(tmp_path / "clip.mp4", FRAMES)
        assert command(tmp_path / "clip.mp4", "--out", tmp_path / "out") == 0
        content = (tmp_path / "out" / "clip.mp4.overlay.mp4").read_bytes()
        assert 0 < content.find(b"moov") < content.find(b"mdat")


@pytest.mark.slow
class TestRepetition:
    def test_only_a_changed_video_is_parsed_again(self, command, tmp_path, capsys):
        clip, out = tmp_path / "clip.mp4", tmp_path / "out"

        def counts(*options):
            assert command(clip, "--out", out, *options) == 0
            return capsys.readouterr().out

        write_clip(clip, FRAMES)
        assert "1 parsed, 0 already done" in counts()
        assert "0 parsed, 1 already done" in counts()
        assert "1 parsed, 0 already done" in counts("--masks", "nose")
        assert "1 parsed, 0 already done" in counts("--overwrite")
        os.utime(clip, (1, 1))  # older than the results, but another file
        assert "1 parsed, 0 already done" in counts()

    @pytest.mark.parametrize(
        "error", [ValueError("a frame that cannot be parsed"), KeyboardInterrupt()]
    )
    def test_an_interrupted_video_leaves_no_file(self, small_parser, tmp_path, monkeypatch, error):
        write_clip(tmp_path / "clip.mp4", FRAMES, sound="aac")

        def track(frames, **_):
            yield from (small_parser(frame, detect=False) for frame in itertools.islice(frames, 2))
            raise error

        monkeypatch.setattr(small_parser, "track", track)
        with pytest.raises(type(error)):
            video.parse_video(
                small_parser,
                tmp_path / "clip.mp4",
                tmp_path / "out" / "clip.mp4",
                Outputs(),
                "",
                {},
            )
        assert not list((tmp_path / "out").iterdir())

    def test_a_full_disk_ends_the_command_with_one_line(
        self, command, small_parser, tmp_path, monkeypatch, capsys
    ):
        write_clip(tmp_path / "clip.mp4", FRAMES)
        finish = VideoFile.finish

        def on_full_disk(file):
            with file._naming_errors():
                raise file._av.error.OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(VideoFile, "finish", on_full_disk)
        assert command(tmp_path / "clip.mp4", "--out", tmp_path / "out") == 1
        *_, last = capsys.readouterr().err.strip().splitlines()
        assert "No space left on device" in last and "clip.mp4.overlay.mp4" in last
        assert "the same command continues" in last
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["settings.json"]
        monkeypatch.setattr(VideoFile, "finish", finish)
        assert command(tmp_path / "clip.mp4", "--out", tmp_path / "out") == 0

    def test_a_file_that_cannot_grow_is_an_error(self, tmp_path):
        """FFmpeg's own error of a write, as on a full disk."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        file = VideoFile(tmp_path / "clip.mkv", video_file.FFV1, Fraction(10), Fraction(1, 10))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(OSError, match="clip.mkv") as caught:
                noise = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
                for pts in range(4):
                    file.add(noise, pts)
                file.finish()
            assert caught.value.errno == errno.EFBIG
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        file.discard()
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(4, 6, 3), (5, 6, 3), (4, 7, 3), (5, 7, 3)])
def test_odd_sides_are_padded_by_one(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    padded = video_file.pad_to_even(picture)
    height, width, _ = shape
    assert padded.shape == (height + height % 2, width + width % 2, 3)
    np.testing.assert_array_equal(padded[:height, :width], picture)
    np.testing.assert_array_equal(padded[-1, -1], picture[-1, -1])
