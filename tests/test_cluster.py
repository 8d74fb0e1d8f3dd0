import argparse
import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_clips import write_clip

from jax_stn_icnn.cli import arguments as command_arguments
from jax_stn_icnn.cli import main, settings
from jax_stn_icnn.cli.outcome import Outcome
from jax_stn_icnn.cli.outputs import Outputs
from jax_stn_icnn.io import weights
from jax_stn_icnn.photos.files import RESULTS
from jax_stn_icnn.photos.reading import SUFFIXES

# In a worker of pytest-xdist, a cluster does not shut down.
if "PYTEST_XDIST_WORKER" in os.environ:
    pytest.skip("run it with -n0", allow_module_level=True)
fsspec = pytest.importorskip("fsspec")
ray = pytest.importorskip("ray")

from jax_stn_icnn.cli import cluster  # noqa: E402 (needs Ray)


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8))


@pytest.fixture(scope="module")
def ckpt(small_parser, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    weights.save_weights(path, small_parser.variables, small_parser.model.config, 64)
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for seed in range(60):
        picture(seed).save(folder / ("deep" if seed % 3 else ".") / f"{seed:02d}.png")
    (folder / "bad.jpg").write_bytes(b"not an image")
    return folder


def contents(folder):
    """Returns the content of each file without the windows, by name; and the windows."""
    files, windows = {}, {}
    for path in filter(Path.is_file, sorted(folder.rglob("*"))):
        name = str(path.relative_to(folder))
        files[name] = path.read_bytes()
        if path.suffix == ".json" and path.name != settings.NAME:
            metadata = json.loads(files[name])
            windows |= {
                (name, i, part): box
                for i, face in enumerate(metadata["faces"])
                for part, box in face.pop("windows").items()
            }
            del metadata["fingerprint"]  # differs between file systems
            files[name] = metadata
    return files, windows


def assert_same(folder, expected):
    (found, windows), (files, others) = contents(folder), contents(expected)
    assert found == files and windows.keys() == others.keys()
    # On some processors the rounding depends on the row of the batch.
    pairs = np.array([(windows[key], others[key]) for key in others])
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], rtol=0, atol=1e-3)


def arguments(ckpt, out):
    options = ["--out", str(out), "--masks", "nose", "--no-detect", "--ray"]
    options += [] if ckpt is None else ["--ckpt", str(ckpt)]
    parser = command_arguments.make_parser(print, print, print)
    return parser.parse_args(["parse", "photos", *options])


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of two nodes with one CPU each: its address, and a function that kills one node."""
    from ray.cluster_utils import Cluster

    # The nodes import the package that is tested.
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = nodes.add_node(num_cpus=1)
    yield nodes.address, lambda: nodes.remove_node(second, allow_graceful=False)
    ray.shutdown()
    nodes.shutdown()


def test_no_photo_is_lost_when_a_node_dies(two_nodes, ckpt, folder, tmp_path, capsys):
    address, kill = two_nodes
    options = ["--ckpt", str(ckpt), "--no-detect", "--recursive", "--masks", "nose"]
    assert main.main(["parse", str(folder), "--out", str(tmp_path / "local"), *options]) == 1
    out = tmp_path / "cluster"
    finished = []

    def kill_after_some_photos():
        while len(finished) < 5:
            time.sleep(0.05)
            finished[:] = out.rglob("*.json")
        kill()

    killer = threading.Thread(target=kill_after_some_photos)
    killer.start()
    command = ["parse", str(folder), "--out", str(out), *options, "--ray", address]
    assert main.main(command) == 1
    killer.join()
    assert 5 <= len(finished) < 60, "the node was killed too late"
    captured = capsys.readouterr()
    assert "60 parsed, 0 already done, 1 failed" in captured.out
    assert "bad.jpg is not an image" in captured.err
    assert_same(out, tmp_path / "local")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    (out / "00.png.json").unlink()
    assert main.main(command) == 1
    assert "1 parsed, 59 already done, 1 failed" in capsys.readouterr().out
    changed = [path.name for path, when in times.items() if path.stat().st_mtime_ns != when]
    assert changed == ["00.png.json"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB, and a function that gives it another size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a disk")
    yield (
        disk,
        lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True),
    )
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_ends_with_one_line_and_the_command_continues_later(
    small_disk, two_nodes, ckpt, tmp_path, capfd
):
    disk, resize = small_disk
    address, _ = two_nodes
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(40):
        picture(seed).resize((480, 360)).save(folder / f"{seed:02d}.png")
    options = ["--ckpt", str(ckpt), "--no-detect", "--masks", "nose"]
    assert main.main(["parse", str(folder), "--out", str(tmp_path / "local"), *options]) == 0
    capfd.readouterr()
    command = ["parse", str(folder), "--out", str(disk / "out"), *options, "--ray", address]
    assert main.main(command) == 1
    printed = capfd.readouterr().err
    assert printed.count("error: ") == 1 and "Traceback" not in printed
    (line,) = re.findall("error: .*", printed)
    match = re.search(rf"No space left on device: '{disk}/out/.*'; the results of (\d+)", line)
    parsed = len(list((disk / "out").glob("*.png.json")))
    assert 0 < int(match[1]) <= parsed < 40
    assert "the same command continues" in line and not list(disk.rglob(".*"))
    resize("50m")
    assert main.main(command) == 0
    assert f"{40 - parsed} parsed, {parsed} already done" in capfd.readouterr().out
    assert_same(disk / "out", tmp_path / "local")


def test_settings_on_a_full_disk_are_named_and_absent(small_disk):
    disk, _ = small_disk
    with pytest.raises(OSError), open(disk / "other", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match=f"No space left on device: '{disk}/{settings.NAME}'"):
        cluster.write_settings(str(disk), "{}")
    assert os.listdir(disk) == ["other"]


def test_an_unknown_class_is_an_error_before_the_cluster_starts(ckpt, folder, tmp_path, capsys):
    command = ["parse", str(folder), "--out", str(tmp_path / "out"), "--ckpt", str(ckpt), "--ray"]
    assert main.main([*command, "--masks", "hare"]) == 1
    assert "no class 'hare'" in capsys.readouterr().err
    assert not ray.is_initialized()


def test_an_unknown_detector_is_an_error_before_the_cluster_starts(ckpt, folder, tmp_path, capsys):
    command = ["parse", str(folder), "--out", str(tmp_path / "out"), "--ckpt", str(ckpt), "--ray"]
    assert main.main([*command, "--detector", "yuno"]) == 1
    assert "yuno" in capsys.readouterr().err
    assert not ray.is_initialized()


def test_workers_get_absolute_paths(ckpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_bytes(ckpt.read_bytes())
    changed = cluster.absolute_paths(arguments("mine", "out"))
    assert (changed.out, changed.ckpt) == (str(tmp_path / "out"), str(tmp_path / "mine"))
    assert changed.detector == "yunet"
    unchanged = arguments(None, "memory://bucket/out")
    assert cluster.absolute_paths(unchanged) == unchanged


class TestAnyFileSystem:
    @pytest.fixture
    def stored(self, folder):
        memory = fsspec.filesystem("memory")
        memory.put(str(folder), "/bucket/photos", recursive=True)
        yield memory
        memory.rm("/bucket", recursive=True)

    def test_photos_are_listed_and_parsed(self, stored, ckpt, folder, tmp_path):
        url, out = "memory://bucket/photos", "memory://bucket/out"
        stored.pipe("/bucket/photos/._00.png", b"of macOS")
        stored.pipe("/bucket/photos/notes.txt", b"no photo")
        system, jobs, found = cluster.list_jobs([url], out, recursive=True)
        assert len(jobs) == 61 and not found.errors
        assert found.left_out == {".txt": 1}
        assert all(job.name.endswith(SUFFIXES) for job in jobs)
        assert len(cluster.list_jobs([url], out, recursive=False)[1]) == 21
        some = [job for job in jobs if job.name in ("00.png", "deep/01.png", "bad.jpg")]
        results = cluster.Worker(system, vars(arguments(ckpt, out))).parse(some)
        assert {job.name: result.num_faces for job, result in zip(some, results, strict=True)} == {
            "00.png": 1, "deep/01.png": 1, "bad.jpg": None,
        }  # fmt: skip
        (error,) = [result.error for result in results if result.error]
        assert "photos/bad.jpg is not an image" in error
        done = set(jobs) - set(cluster.unfinished(jobs, out, Outputs()))
        assert {job.name for job in done} == {"00.png", "deep/01.png"}
        stored.pipe("/bucket/photos/00.png", stored.cat_file("/bucket/photos/03.png"))
        _, changed, _ = cluster.list_jobs([url], out, recursive=True)
        done = set(changed) - set(cluster.unfinished(changed, out, Outputs()))
        assert {job.name for job in done} == {"deep/01.png"}
        main.main(
            ["parse", str(folder / "00.png"), "--out", str(tmp_path / "local")]
            + ["--ckpt", str(ckpt), "--no-detect", "--masks", "nose"]
        )
        (tmp_path / "fetched").mkdir()
        cluster.write_settings(out, settings.to_json(arguments(ckpt, out)))
        for path in (tmp_path / "local").iterdir():
            (tmp_path / "fetched" / path.name).write_bytes(
                stored.cat_file(f"/bucket/out/{path.name}")
            )
        assert_same(tmp_path / "fetched", tmp_path / "local")

    def test_videos_are_parsed(self, stored, ckpt, tmp_path):
        frames = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8)
        write_clip(tmp_path / "clip.mp4", frames, sound="aac")
        stored.put(str(tmp_path / "clip.mp4"), "/bucket/videos/clip.mp4")
        stored.pipe("/bucket/videos/bad.mp4", b"no video")
        url, out = "memory://bucket/videos", "memory://bucket/out"
        system, jobs, _ = cluster.list_jobs([url], out, recursive=False)
        bad, good = cluster.Worker(system, vars(arguments(ckpt, out))).parse(jobs)
        assert "videos/bad.mp4 is not a video" in bad.error
        assert good.num_faces == 4
        assert [job.name for job in cluster.unfinished(jobs, out, Outputs(masks=("nose",)))] == [
            "bad.mp4"
        ]
        found = {path.rsplit("/", 1)[-1] for path in stored.find("/bucket/out")}
        assert found == {
            f"clip.mp4.{end}" for end in ("overlay.mp4", "labels.mkv", "nose.mkv", "json")
        }
        cluster.write_coco(jobs, out, Outputs(coco=True))  # of the photos; there are none
        assert json.loads(stored.cat_file("/bucket/out/coco.json"))["images"] == []

    def test_results_of_other_settings_are_not_mixed(self, stored, ckpt):
        out = "memory://bucket/out"
        for _ in range(2):
            cluster.write_settings(out, settings.to_json(arguments(ckpt, out)))
        with pytest.raises(
            ValueError, match="small.safetensors in the folder, nine.safetensors now"
        ):
            cluster.write_settings(out, settings.to_json(arguments("nine", out)))

    def test_results_are_not_photos_and_have_distinct_files(self, stored):
        stored.pipe("/bucket/photos/out/00.png.overlay.jpg", b"a result")
        url, out = "memory://bucket/photos", "memory://bucket/photos/out"
        assert len(cluster.list_jobs([url, f"{url}/00.png"], out, recursive=True)[1]) == 61
        # Nor are those of an output folder from another run.
        stored.pipe("/bucket/photos/out/settings.json", b"{}")
        _, jobs, found = cluster.list_jobs([url], "memory://bucket/other", recursive=True)
        assert len(jobs) == 61 and found.left_out == {RESULTS: 1, ".json": 1}
        with pytest.raises(ValueError, match="the folder of the photos"):
            cluster.list_jobs([url], url + "/", recursive=True)
        stored.pipe("/bucket/other/00.png", b"another photo")
        with pytest.raises(ValueError, match="have the same output files"):
            cluster.list_jobs([url, "memory://bucket/other"], out, recursive=False)

    def test_missing_photos_are_named(self, stored, tmp_path):
        stored.makedirs("/bucket/empty")
        urls = ["memory://bucket/nothing", "memory://bucket/empty", "memory://bucket/photos"]
        _, jobs, found = cluster.list_jobs(urls, "memory://bucket/out", False)
        assert len(jobs) == 21
        missing, empty = found.errors
        assert "no file or folder memory://bucket/nothing" in missing
        assert "empty contains no file named" in empty
        with pytest.raises(ValueError, match="several file systems"):
            cluster.list_jobs(["memory://bucket", str(tmp_path)], "memory://bucket/out", False)


class Dead(Exception):
    pass


class FakeActors:
    """Replaces Ray: actors are numbers, and `lives` decides whether an actor survives a task."""

    places = 9  # number of actors that can start

    def __init__(self, *_):
        self.tasks, self.idle, self.started = [], [], 0

    def start(self):
        self.started += 1
        if self.started <= self.places:
            self.tasks.append((self.started, None))

    def submit(self, actor, task):
        self.tasks.append((actor, task))

    def wait(self):
        assert self.tasks, "no actor is busy, and none will be"
        actor, task = self.tasks.pop(0)
        return (actor, task), actor, task

    def any_left(self):
        return bool(self.tasks or self.idle)

    def kill(self):
        pass


@pytest.fixture
def run(monkeypatch, ckpt, tmp_path):
    """Returns a function that parses photos by fake actors, some of which die or do not start."""

    def run(num_actors, lives, places=9, photos=20, starts=lambda actor: True):
        def get(ref):
            actor, task = ref
            if task is None and not starts(actor):
                raise Dead("in its task:\nValueError: no such file")
            if task is None:
                return True
            if not lives(actor, [job.name for job in task[0]]):
                raise Dead
            return [Outcome(1)] * len(task[0])

        monkeypatch.setattr(FakeActors, "places", places)
        monkeypatch.setattr(cluster, "ActorPool", FakeActors)
        monkeypatch.setattr(cluster, "count_actors", lambda _: num_actors)
        monkeypatch.setattr(ray, "exceptions", argparse.Namespace(RayActorError=Dead))
        monkeypatch.setattr(ray, "get", get)
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        jobs = [cluster.Job(f"/{n:02d}", f"{n:02d}", "") for n in range(photos)]
        return {
            job.name: one.error for job, one in cluster.run(None, jobs, arguments(ckpt, tmp_path))
        }

    return run


def test_a_video_is_a_task_of_its_own(run, monkeypatch):
    tasks = []
    monkeypatch.setattr(cluster.files, "is_video", lambda name: name in ("03", "07"))
    run(2, lambda actor, names: tasks.append(names) or True, photos=12)
    assert sorted(map(len, tasks)) == [1, 1, 2, 8]
    assert ["03"] in tasks and ["07"] in tasks


def test_a_photo_that_kills_actors_fails_alone(run):
    errors = run(1, lambda actor, names: "07" not in names)
    assert len(errors) == 20
    assert {name: error for name, error in errors.items() if error} == {
        "07": "/07: 3 workers died while parsing it"
    }


def test_the_run_ends_if_no_actor_starts(run):
    with pytest.raises(ChildProcessError, match=r"no worker starts: .*no such file"):
        run(2, lambda *_: True, starts=lambda actor: False)


def test_the_other_actors_get_the_tasks_of_those_that_do_not_start(run):
    errors = run(3, lambda *_: True, starts=lambda actor: actor == 2, photos=40)
    assert len(errors) == 40 and not any(errors.values())


def test_an_idle_actor_gets_the_tasks_of_a_dead_one(run):
    """The second actor dies while the first is idle; there is no place for a third."""
    errors = run(2, lambda actor, names: actor == 1, places=2, photos=2 * cluster.JOBS_PER_TASK)
    assert len(errors) == 16 and not any(errors.values())
