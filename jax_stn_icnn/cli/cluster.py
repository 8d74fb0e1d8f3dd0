"""The command over a Ray cluster: one actor an accelerator, or one a node where there is none.

Photos and results may lie in any file system that fsspec knows, which all nodes must reach; a local
folder is one that all nodes share. An actor takes a few photos at a time. What an actor that dies
had not finished, others do; a photo that has all of its files is never done again.
"""

import argparse
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax_stn_icnn.cli import settings, writer
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.faces import detectors
from jax_stn_icnn.inference.parser import FaceParser
from jax_stn_icnn.inference.results import PhotoResult
from jax_stn_icnn.io.weights import PRETRAINED, weights_file
from jax_stn_icnn.photos import files
from jax_stn_icnn.photos.reading import SUFFIXES

PHOTOS_AT_A_TIME = 8
# A photo on which actors die is left after so many of them; so is a place where none starts.
ATTEMPTS = 3


class Job(NamedTuple):
    """A photo.

    Attributes:
        photo: its path in its file system.
        name: of its results, relative to the folder for them.
    """

    photo: str
    name: str


class Store(NamedTuple):
    """A folder in a file system: `fsspec`'s file system, and a path in it."""

    system: Any
    root: str

    @classmethod
    def of(cls, url: str) -> "Store":
        """The folder, or file, of a URL or a local path.

        Raises:
            ImportError: fsspec is not installed, or what it needs for such a URL.
            ValueError: the protocol is unknown.
        """
        import fsspec

        return cls(*fsspec.core.url_to_fs(url))

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of the machine itself."""
        return "file" in _protocols(self.system)


class Finished(NamedTuple):
    """What became of a photo: how many faces it has, or why it failed."""

    faces: int
    error: str | None


def find(urls: Sequence[str], out: str, recursive: bool) -> tuple[Any, list[Job], list[str]]:
    """Lists the photos that a command's arguments name.

    Args:
        urls: photos, or folders of them, all in one file system.
        out: the folder for the results.
        recursive: whether folders inside folders are searched.

    Returns:
        The file system, the photos, and why files were left out.

    Raises:
        FileNotFoundError: there is no such file or folder, or no photo in a folder.
        ValueError: they lie in several file systems, results would mix with the photos, or two
            photos would write the same results.
    """
    stores = [Store.of(url) for url in urls]
    target = Store.of(out)
    if all(store.is_local for store in stores):
        # A folder for results elsewhere has no place among local photos.
        place = Path(target.root) if target.is_local else None
        found = files.find_files([Path(store.root) for store in stores], place, recursive)
        jobs = [Job(str(one.path), str(one.name)) for one in found.inputs if not one.is_video]
        videos = [
            f"{one.path} is a video: parse it without --ray" for one in found.inputs if one.is_video
        ]
        return stores[0].system, jobs, found.skipped + videos
    if len({_protocols(store.system) for store in stores}) > 1:
        raise ValueError(f"{', '.join(urls)} lie in several file systems: parse them apart")
    results_root = target.root if _protocols(target.system) == _protocols(stores[0].system) else ""
    jobs = []
    for store, url in zip(stores, urls, strict=True):
        if results_root and store.root == results_root:
            raise ValueError(f"--out is {out}, the photos' own folder: name another")
        jobs += _in_store(store, url, results_root, recursive)
    jobs = list({job.photo: job for job in jobs}.values())
    by_name: dict[str, str] = {}
    for photo, name in jobs:
        if (other := by_name.setdefault(name, photo)) != photo:
            raise ValueError(f"{other} and {photo} would write the same files: parse them apart")
    return stores[0].system, jobs, []


def _in_store(store: Store, url: str, results_root: str, recursive: bool) -> list[Job]:
    """The photos of a URL, without those in the folder for the results."""
    system, root = store
    if not system.exists(root):
        raise FileNotFoundError(f"there is no file or folder {url}")
    if system.isfile(root):
        return [Job(root, root.rsplit("/", 1)[-1])]
    jobs = [
        Job(path, path.removeprefix(root).lstrip("/"))
        for path in sorted(system.find(root, maxdepth=None if recursive else 1))
        if path.lower().endswith(SUFFIXES)
        and not (results_root and path.startswith(f"{results_root}/"))
    ]
    if not jobs:
        raise FileNotFoundError(f"{url} holds no file called *{', *'.join(SUFFIXES)}")
    return jobs


def for_workers(args: argparse.Namespace) -> argparse.Namespace:
    """The command's arguments for workers, whose current folder is another: paths in full."""
    out = Store.of(args.out)
    full = argparse.Namespace(**vars(args))
    if out.is_local:
        full.out = out.root
    # What comes with the package may lie elsewhere there: its name goes on as it is.
    if args.ckpt is not None and (file := weights_file(args.ckpt)).parent != PRETRAINED:
        full.ckpt = str(file.absolute())
    if args.detector not in detectors.NAMES:
        full.detector = str(Path(args.detector).absolute())
    return full


def todo(jobs: Sequence[Job], out: str, masks: Sequence[str]) -> list[Job]:
    """The photos that lack some of their files.

    Args:
        jobs: the photos.
        out: the folder for the results, a URL or a local path; it need not exist.
        masks: names of classes that get a file of their own.

    Returns:
        Those photos, in the same order.
    """
    store = Store.of(out)
    there = set()
    if store.system.exists(store.root):
        there = {
            path.removeprefix(store.root).lstrip("/") for path in store.system.find(store.root)
        }
    return [job for job in jobs if not set(writer.names(job.name, masks)) <= there]


def note_settings(out: str, made_with: str) -> None:
    """Writes what results are made with into their folder, or checks that it is what it says.

    Args:
        out: the folder.
        made_with: of `settings.of`.

    Raises:
        ValueError: the folder holds results that were made otherwise.
    """
    system, root = Store.of(out)
    path = f"{root}/{settings.NAME}"
    if system.exists(path):
        settings.check(out, system.cat_file(path).decode(), made_with)
    else:
        system.makedirs(root, exist_ok=True)
        system.pipe_file(path, made_with.encode())


def run(
    system: Any, jobs: Sequence[Job], args: argparse.Namespace
) -> Iterator[tuple[Job, Finished]]:
    """Parses photos on the cluster.

    Args:
        system: where they lie.
        jobs: the photos.
        args: the command's: `ray`, the cluster's address, and what `FaceParser` is told.

    Yields:
        Each photo as it is finished, and what became of it.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no such cluster.
        ChildProcessError: no actor could be started; the message says why.
    """
    import ray

    was_connected = ray.is_initialized()
    if not was_connected:
        ray.init(address=args.ray or None, log_to_driver=False)
    actors = _Actors(ray, system, for_workers(args))
    waiting = deque(
        (list(jobs[i : i + PHOTOS_AT_A_TIME]), 1) for i in range(0, len(jobs), PHOTOS_AT_A_TIME)
    )
    try:
        num_actors = min(_num_actors(ray), len(waiting))
        for _ in range(num_actors):
            actors.start()
        left, failed_starts = len(waiting), 0
        while left:
            # Also what a dead actor leaves: a new one may never find a place.
            while waiting and actors.resting:
                actors.give(actors.resting.pop(), waiting.popleft())
            ref, actor, given = actors.next()
            try:
                finished = ray.get(ref)
            except ray.exceptions.RayActorError as error:
                failed_starts = failed_starts + 1 if given is None else 0
                if failed_starts < ATTEMPTS * num_actors:
                    actors.start()
                elif not actors.are_any():
                    why = str(error).strip().splitlines()[-1]
                    raise ChildProcessError(f"no worker could be started: {why}") from error
                if given is None:
                    continue
                photos, attempt = given
                if attempt < ATTEMPTS:
                    # One by one, so that a photo on which actors die takes no other with it.
                    waiting.extend(([photo], attempt + 1) for photo in photos)
                    left += len(photos) - 1
                else:
                    left -= 1
                    message = f"its worker died, {ATTEMPTS} times"
                    yield from (
                        (photo, Finished(0, f"{photo.photo}: {message}")) for photo in photos
                    )
                continue
            if given is not None:
                left -= 1
                yield from zip(given[0], finished, strict=True)
            actors.resting.append(actor)
    finally:
        actors.stop()
        if not was_connected:
            ray.shutdown()


class _Actors:
    """The actors of a run, and what each is at."""

    def __init__(self, ray: Any, system: Any, args: argparse.Namespace):
        on_gpu = ray.cluster_resources().get("GPU", 0) >= 1
        options = {"num_gpus": 1} if on_gpu else {"num_cpus": 1}
        self._ray = ray
        self._make = ray.remote(_Worker).options(scheduling_strategy="SPREAD", **options)
        self._given = (system, vars(args))
        self._busy: dict[Any, tuple[Any, Any]] = {}
        self.resting: list[Any] = []

    def start(self) -> None:
        """Asks for one more; it is given work once it stands, which needs a free place."""
        actor = self._make.remote(*self._given)
        self._busy[actor.is_ready.remote()] = actor, None

    def give(self, actor: Any, work: tuple[list[Job], int]) -> None:
        self._busy[actor.parse.remote(work[0])] = actor, work

    def are_any(self) -> bool:
        """Whether any rests, works, or is about to stand."""
        return bool(self.resting or self._busy)

    def next(self) -> tuple[Any, Any, Any]:
        """Waits for an actor to be done, or dead: the reference, the actor, and its work."""
        (ref, *_), _ = self._ray.wait(list(self._busy), num_returns=1)
        return ref, *self._busy.pop(ref)

    def stop(self) -> None:
        for actor in self.resting + [actor for actor, _ in self._busy.values()]:
            self._ray.kill(actor)


class _Worker:
    """A parser on one of the cluster's nodes."""

    def __init__(self, system: Any, args: dict[str, Any]):
        self._system = system
        self._args = argparse.Namespace(**args)
        self._out = Store.of(self._args.out)
        cache.enable_cache(None)
        self._parser = FaceParser.load(self._args.ckpt, detector=self._args.detector)

    def is_ready(self) -> bool:
        return True

    def parse(self, jobs: list[Job]) -> list[Finished]:
        """Parses photos and writes their files."""
        args = self._args
        missing = set(todo(jobs, args.out, args.masks))  # Some may be an actor's that died since.
        outcomes = {job: Finished(0, None) for job in jobs}
        with tempfile.TemporaryDirectory() as folder:
            local: dict[Job, Path] = {}
            for number, job in enumerate(job for job in jobs if job in missing):
                try:
                    local[job] = self._fetched(job, Path(folder, str(number)))
                except OSError as error:
                    outcomes[job] = Finished(0, f"{job.photo}: {error}")
            parses = self._parser.stream(
                local.values(), detect=args.detect, batch_size=args.batch, errors="yield"
            )
            for (job, path), parse in zip(local.items(), parses, strict=True):
                try:
                    if isinstance(parse, Exception):
                        raise parse
                    self._write(job, parse)
                    outcomes[job] = Finished(len(parse.faces), None)
                except (OSError, ValueError) as error:
                    outcomes[job] = Finished(0, str(error).replace(str(path), job.photo))
        return [outcomes[job] for job in jobs]

    def _fetched(self, job: Job, path: Path) -> Path:
        """Where on this machine a photo lies, which may first have to be brought there."""
        if Store(self._system, "").is_local:
            return Path(job.photo)
        self._system.get_file(job.photo, str(path))
        return path

    def _write(self, job: Job, parse: PhotoResult) -> None:
        if self._out.is_local:
            writer.write(Path(self._out.root) / job.name, parse, self._args.masks)
            return
        with tempfile.TemporaryDirectory() as folder:
            writer.write(Path(folder) / job.name, parse, self._args.masks)
            for name in writer.names(job.name, self._args.masks):
                target = f"{self._out.root}/{name}"
                self._out.system.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
                self._out.system.put_file(f"{folder}/{name}", target)


def _num_actors(ray: Any) -> int:
    """One for each GPU, or for each node that has a CPU."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    return gpus or max(len(nodes), 1)


def _protocols(system: Any) -> tuple[str, ...]:
    protocol = system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
