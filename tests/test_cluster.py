import argparse
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jax_stn_icnn.cli import main, settings
from jax_stn_icnn.io import weights
from jax_stn_icnn.photos.reading import SUFFIXES

# A cluster in a worker of pytest-xdist does not come to an end.
if "PYTEST_XDIST_WORKER" in os.environ:
    pytest.skip("run it with -n0", allow_module_level=True)
fsspec = pytest.importorskip("fsspec")
ray = pytest.importorskip("ray")

from jax_stn_icnn.cli import cluster  # noqa: E402 (only where Ray is)


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8))


@pytest.fixture(scope="module")
def ckpt(small_parser, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    weights.save_weights(path, small_parser.variables, small_parser.model, 64)
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for seed in range(60):
        picture(seed).save(folder / ("deep" if seed % 3 else ".") / f"{seed:02d}.png")
    (folder / "bad.jpg").write_bytes(b"no picture")
    return folder


def contents(folder):
    """Each file's bytes by its name, without the windows; and the windows."""
    files, windows = {}, {}
    for path in filter(Path.is_file, sorted(folder.rglob("*"))):
        name = str(path.relative_to(folder))
        files[name] = path.read_bytes()
        if path.suffix == ".json" and path.name != settings.NAME:
            facts = json.loads(files[name])
            windows |= {
                (name, i, part): box
                for i, face in enumerate(facts["faces"])
                for part, box in face.pop("windows").items()
            }
            files[name] = facts
    return files, windows


def assert_same(folder, expected):
    (found, windows), (files, others) = contents(folder), contents(expected)
    assert found == files and windows.keys() == others.keys()
    # A photo may have another place in its batch, which some processors round otherwise.
    pairs = np.array([(windows[key], others[key]) for key in others])
    np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], rtol=0, atol=1e-3)


def given(ckpt, out, **changes):
    fields = dict(ckpt=ckpt, detector="yunet", out=out, masks=["nose"], detect=False, batch=4)
    return argparse.Namespace(**fields, ray="", **changes)


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of two nodes with a CPU each; gives the address, and kills the second."""
    from ray.cluster_utils import Cluster

    # What the nodes import is what is tested.
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = nodes.add_node(num_cpus=1)
    yield nodes.address, lambda: nodes.remove_node(second, allow_graceful=False)
    ray.shutdown()
    nodes.shutdown()


def test_a_node_that_dies_loses_nothing(two_nodes, ckpt, folder, tmp_path, capsys):
    address, kill = two_nodes
    options = ["--ckpt", str(ckpt), "--no-detect", "--recursive", "--masks", "nose"]
    assert main.main(["parse", str(folder), "--out", str(tmp_path / "here"), *options]) == 1
    out = tmp_path / "there"
    seen = []

    def kill_when_some_are_done():
        while len(seen) < 5:
            time.sleep(0.05)
            seen[:] = out.rglob("*.json")
        kill()

    killer = threading.Thread(target=kill_when_some_are_done)
    killer.start()
    command = ["parse", str(folder), "--out", str(out), *options, "--ray", address]
    assert main.main(command) == 1
    killer.join()
    assert 5 <= len(seen) < 60, "it was too late to kill anything"
    captured = capsys.readouterr()
    assert "60 parsed, 0 there already, 1 failed" in captured.out
    assert "bad.jpg is not an image" in captured.err
    assert_same(out, tmp_path / "here")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    (out / "00.png.json").unlink()
    assert main.main(command) == 1
    assert "1 parsed, 59 there already, 1 failed" in capsys.readouterr().out
    changed = [path.name for path, when in times.items() if path.stat().st_mtime_ns != when]
    assert changed == ["00.png.json"]


def test_a_mask_without_a_class_is_said_before_there_is_a_cluster(ckpt, folder, tmp_path, capsys):
    command = ["parse", str(folder), "--out", str(tmp_path / "out"), "--ckpt", str(ckpt), "--ray"]
    assert main.main([*command, "--masks", "hare"]) == 1
    assert "no class 'hare'" in capsys.readouterr().err
    assert not ray.is_initialized()


def test_an_unknown_detector_is_said_before_there_is_a_cluster(ckpt, folder, tmp_path, capsys):
    command = ["parse", str(folder), "--out", str(tmp_path / "out"), "--ckpt", str(ckpt), "--ray"]
    assert main.main([*command, "--detector", "yuno"]) == 1
    assert "yuno" in capsys.readouterr().err
    assert not ray.is_initialized()


def test_workers_are_given_paths_in_full(ckpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_bytes(ckpt.read_bytes())
    changed = cluster.for_workers(given("mine", "out"))
    assert (changed.out, changed.ckpt) == (str(tmp_path / "out"), str(tmp_path / "mine"))
    assert changed.detector == "yunet"
    kept = given(None, "memory://bucket/out")
    assert cluster.for_workers(kept) == kept


class TestAnyFileSystem:
    @pytest.fixture
    def stored(self, folder):
        memory = fsspec.filesystem("memory")
        memory.put(str(folder), "/bucket/photos", recursive=True)
        yield memory
        memory.rm("/bucket", recursive=True)

    def test_photos_are_found_and_parsed_where_they_lie(self, stored, ckpt, folder, tmp_path):
        url, out = "memory://bucket/photos", "memory://bucket/out"
        system, jobs, skipped = cluster.find([url], out, recursive=True)
        assert len(jobs) == 61 and not skipped
        assert all(job.name.endswith(SUFFIXES) for job in jobs)
        assert len(cluster.find([url], out, recursive=False)[1]) == 21
        some = [job for job in jobs if job.name in ("00.png", "deep/01.png", "bad.jpg")]
        finished = cluster._Worker(system, vars(given(ckpt, out))).parse(some)
        assert {job.name: done.faces for job, done in zip(some, finished, strict=True)} == {
            "00.png": 1, "deep/01.png": 1, "bad.jpg": 0,
        }  # fmt: skip
        (error,) = [done.error for done in finished if done.error]
        assert "photos/bad.jpg is not an image" in error
        assert {job.name for job in jobs} - {job.name for job in cluster.todo(jobs, out, [])} == {
            "00.png", "deep/01.png",
        }  # fmt: skip
        main.main(
            ["parse", str(folder / "00.png"), "--out", str(tmp_path / "here")]
            + ["--ckpt", str(ckpt), "--no-detect", "--masks", "nose"]
        )
        (tmp_path / "fetched").mkdir()
        cluster.note_settings(out, settings.of(ckpt, "yunet", detect=False))
        for path in (tmp_path / "here").iterdir():
            (tmp_path / "fetched" / path.name).write_bytes(
                stored.cat_file(f"/bucket/out/{path.name}")
            )
        assert_same(tmp_path / "fetched", tmp_path / "here")

    def test_results_made_otherwise_do_not_mix(self, stored, ckpt):
        out = "memory://bucket/out"
        for _ in range(2):
            cluster.note_settings(out, settings.of(ckpt, "yunet", detect=True))
        with pytest.raises(ValueError, match="small.safetensors there, nine.safetensors now"):
            cluster.note_settings(out, settings.of("nine", "yunet", detect=True))

    def test_results_are_no_photos_and_never_written_twice(self, stored):
        stored.pipe("/bucket/photos/out/00.png.overlay.jpg", b"a result")
        url, out = "memory://bucket/photos", "memory://bucket/photos/out"
        assert len(cluster.find([url, f"{url}/00.png"], out, recursive=True)[1]) == 61
        with pytest.raises(ValueError, match="own folder"):
            cluster.find([url], url + "/", recursive=True)
        stored.pipe("/bucket/other/00.png", b"another photo")
        with pytest.raises(ValueError, match="would write the same files"):
            cluster.find([url, "memory://bucket/other"], out, recursive=False)

    def test_what_is_not_there_is_named(self, stored, tmp_path):
        with pytest.raises(FileNotFoundError, match="memory://bucket/nothing"):
            cluster.find(["memory://bucket/nothing"], "memory://bucket/out", False)
        stored.makedirs("/bucket/empty")
        with pytest.raises(FileNotFoundError, match="empty holds no file called"):
            cluster.find(["memory://bucket/empty"], "memory://bucket/out", False)
        with pytest.raises(ValueError, match="several file systems"):
            cluster.find(["memory://bucket", str(tmp_path)], "memory://bucket/out", False)


class Dead(Exception):
    pass


class PlayedActors:
    """Ray itself is played: actors are numbers, and `lives` says on which work one dies."""

    places = 9  # how many actors may ever stand

    def __init__(self, *_):
        self.work, self.resting, self.started = [], [], 0

    def start(self):
        self.started += 1
        if self.started <= self.places:
            self.work.append((self.started, None))

    def give(self, actor, work):
        self.work.append((actor, work))

    def next(self):
        assert self.work, "nothing is being done, and nothing will be"
        actor, work = self.work.pop(0)
        return (actor, work), actor, work

    def are_any(self):
        return bool(self.work or self.resting)

    def stop(self):
        pass


@pytest.fixture
def play(monkeypatch, ckpt, tmp_path):
    """Runs photos by actors, of which some die at some work, and some do not start."""

    def play(num_actors, lives, places=9, photos=20, starts=lambda actor: True):
        def get(ref):
            actor, work = ref
            if work is None and not starts(actor):
                raise Dead("in its task:\nValueError: no such file")
            if work is None:
                return True
            if not lives(actor, [job.name for job in work[0]]):
                raise Dead
            return [cluster.Finished(1, None)] * len(work[0])

        monkeypatch.setattr(PlayedActors, "places", places)
        monkeypatch.setattr(cluster, "_Actors", PlayedActors)
        monkeypatch.setattr(cluster, "_num_actors", lambda _: num_actors)
        monkeypatch.setattr(ray, "exceptions", argparse.Namespace(RayActorError=Dead))
        monkeypatch.setattr(ray, "get", get)
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        jobs = [cluster.Job(f"/{n:02d}", f"{n:02d}") for n in range(photos)]
        return {job.name: one.error for job, one in cluster.run(None, jobs, given(ckpt, tmp_path))}

    return play


def test_a_photo_on_which_actors_die_is_given_up_and_the_others_are_not(play):
    errors = play(1, lambda actor, names: "07" not in names)
    assert len(errors) == 20
    assert {name: error for name, error in errors.items() if error} == {
        "07": "/07: its worker died, 3 times"
    }


def test_actors_of_which_none_starts_end_the_run(play):
    with pytest.raises(ChildProcessError, match=r"no worker could be started: .*no such file"):
        play(2, lambda *_: True, starts=lambda actor: False)


def test_actors_that_do_not_start_leave_the_work_to_those_that_do(play):
    errors = play(3, lambda *_: True, starts=lambda actor: actor == 2, photos=40)
    assert len(errors) == 40 and not any(errors.values())


def test_an_actor_that_rests_takes_what_a_dead_one_leaves(play):
    """The second dies while the first has nothing left to do; there is no place for a third."""
    errors = play(2, lambda actor, names: actor == 1, places=2, photos=2 * cluster.PHOTOS_AT_A_TIME)
    assert len(errors) == 16 and not any(errors.values())
