"""Runs the command on a Ray cluster: one actor per accelerator, or per node without one.

Photos and results may be in any file system that fsspec supports and all nodes reach; a local
folder must be shared by all nodes. An actor is given a few photos, or a video, at a time. When an
actor dies, other actors get what it has not finished; inputs whose output files exist are not
parsed again.
"""

import argparse
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jax_stn_icnn.atomic import remove_partial_files, write_atomically
from jax_stn_icnn.cli import coco_file, settings, video, writer
from jax_stn_icnn.cli.loading import load_parser, stream_options
from jax_stn_icnn.cli.outcome import Outcome
from jax_stn_icnn.cli.outputs import JSON, Outputs, is_result_name, make_result_test
from jax_stn_icnn.compilation import cache
from jax_stn_icnn.faces import detectors
from jax_stn_icnn.faces.resample import OpenCVError
from jax_stn_icnn.inference.results import PhotoResult
from jax_stn_icnn.io.weights import PRETRAINED, weights_file
from jax_stn_icnn.photos import files
from jax_stn_icnn.photos.files import InputFiles
from jax_stn_icnn.photos.reading import SUFFIXES

JOBS_PER_TASK = 8
# A photo is given up after this many actors have died on it, and no more actors are started after
# this many per place have failed to start.
ATTEMPTS = 3


class Job(NamedTuple):
    """A photo or video to parse.

    Attributes:
        photo: its path in its file system.
        name: path of its results without their suffixes, relative to the output folder.
        fingerprint: text that changes when the photo changes.
    """

    photo: str
    name: str
    fingerprint: str

    @property
    def is_video(self) -> bool:
        """Whether the suffix is that of a video."""
        return files.is_video(self.name)


class Store(NamedTuple):
    """A folder or file: an fsspec file system and a path in it."""

    system: Any
    root: str

    @classmethod
    def from_url(cls, url: str) -> "Store":
        """Opens a URL or a local path.

        Raises:
            ImportError: fsspec, or what it needs for this URL, is not installed.
            ValueError: the protocol is unknown.
        """
        import fsspec

        return cls(*fsspec.core.url_to_fs(url))

    @property
    def is_local(self) -> bool:
        """Whether the file system is that of this machine."""
        return "file" in _protocols(self.system)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file in the folder, on this machine atomically.

        Args:
            name: path of the file, relative to the folder, which must exist.
            data: its content.

        Raises:
            OSError: the file cannot be written; on this machine the error names it.
        """
        if self.is_local:
            write_atomically(Path(self.root, name), lambda file: file.write(data))
        else:
            self.system.pipe_file(f"{self.root}/{name}", data)

    def remove_partial_files(self) -> None:
        """Removes what killed processes of this machine have left in the folder, if it is local."""
        if self.is_local:
            remove_partial_files(Path(self.root))


def list_jobs(urls: Sequence[str], out: str, recursive: bool) -> tuple[Any, list[Job], InputFiles]:
    """Lists the photos that a command's arguments name.

    Args:
        urls: photos and folders of photos, all in one file system.
        out: the output folder.
        recursive: whether folders are searched recursively.

    Returns:
        The file system, the photos, and the files that are not parsed.

    Raises:
        ValueError: the arguments are in several file systems, the output folder is the folder of
            the photos, or two photos have the same output files.
    """
    stores = [Store.from_url(url) for url in urls]
    target = Store.from_url(out)
    if all(store.is_local for store in stores):
        # An output folder in another file system cannot be among the photos.
        local_out = Path(target.root) if target.is_local else None
        roots = [Path(store.root) for store in stores]
        found = files.find_files(roots, local_out, recursive, make_result_test())
        jobs = [Job(str(path), str(name), fingerprint) for path, name, fingerprint in found.inputs]
        return stores[0].system, jobs, found
    if len({_protocols(store.system) for store in stores}) > 1:
        raise ValueError(f"{', '.join(urls)} are in several file systems: parse them separately")
    out_root = target.root if _protocols(target.system) == _protocols(stores[0].system) else ""
    jobs, found = [], InputFiles([], [], [], Counter())
    for store, url in zip(stores, urls, strict=True):
        if out_root and store.root == out_root:
            raise ValueError(f"--out is {out}, the folder of the photos: name another")
        jobs += _jobs_in(store, url, out_root, recursive, found)
    jobs = list({job.photo: job for job in jobs}.values())
    by_name: dict[str, str] = {}
    for photo, name, _ in jobs:
        if (other := by_name.setdefault(name, photo)) != photo:
            raise ValueError(
                f"{other} and {photo} have the same output files: parse them into different folders"
            )
    return stores[0].system, jobs, found


def _jobs_in(
    store: Store, url: str, out_root: str, recursive: bool, found: InputFiles
) -> list[Job]:
    """Lists the photos of a URL; adds files that are not parsed to `found`."""
    system, root = store
    if not system.exists(root):
        found.errors.append(f"there is no file or folder {url}")
        return []
    if system.isfile(root):
        return [Job(root, root.rsplit("/", 1)[-1], system.ukey(root))]
    paths = sorted(system.find(root, maxdepth=None if recursive else 1))
    existing, suffixes = set(paths), SUFFIXES + files.VIDEO_SUFFIXES
    result_folders = [path.removesuffix(settings.NAME) for path in paths if _is_settings(path)]
    jobs = []
    for path in paths:
        folder, file_name = path.rsplit("/", 1)
        name = path.removeprefix(root).lstrip("/")
        if out_root and path.startswith(f"{out_root}/"):
            continue
        if not files.has_suffix(name, suffixes, found.left_out):
            continue
        exists_beside = partial(_exists, existing, folder)
        if path.startswith(tuple(result_folders)) and is_result_name(file_name, exists_beside):
            found.left_out[files.RESULTS] += 1
        else:
            jobs.append(Job(path, name, system.ukey(path)))
    if not jobs:
        found.errors.append(f"{url} contains no file named *{', *'.join(suffixes)}")
    return jobs


def _exists(existing: Container[str], folder: str, name: str) -> bool:
    return f"{folder}/{name}" in existing


def _is_settings(path: str) -> bool:
    return path.rsplit("/", 1)[-1] == settings.NAME


def unfinished(jobs: Sequence[Job], out: str, outputs: Outputs) -> list[Job]:
    """Returns the photos that lack output files or have changed since, in the same order.

    Args:
        jobs: the photos.
        out: the output folder, a URL or a local path; it need not exist.
        outputs: the output files.
    """
    system, root = Store.from_url(out)
    if not system.exists(root):
        return list(jobs)
    existing = set(system.find(root))
    exists = partial(_exists, existing, root)

    def is_done(job: Job) -> bool:
        path = f"{root}/{job.name}{JSON}"
        metadata = system.cat_file(path) if path in existing else None
        return outputs.are_complete(job.name, job.fingerprint, metadata, exists)

    return [job for job in jobs if not is_done(job)]


def write_coco(jobs: Sequence[Job], out: str, outputs: Outputs) -> None:
    """Writes the annotations of the photos that have been parsed.

    Args:
        jobs: the photos.
        out: the output folder, a URL or a local path.
        outputs: the output files.
    """
    store = Store.from_url(out)
    system, root = store
    missing = {job.name for job in unfinished(jobs, out, outputs)}
    names = [job.name for job in jobs if not job.is_video and job.name not in missing]
    photos = ((name, system.cat_file(f"{root}/{name}{JSON}")) for name in names)
    store.write(coco_file.NAME, coco_file.merge(photos))


def write_settings(out: str, current: str) -> None:
    """Writes the settings into a new output folder, or checks those of an existing one.

    Args:
        out: the output folder, a URL or a local path.
        current: content of `settings.to_json`.

    Raises:
        ValueError: the folder has results of other settings.
    """
    store = Store.from_url(out)
    system, root = store
    path = f"{root}/{settings.NAME}"
    if system.exists(path):
        settings.check(out, system.cat_file(path), current)
    else:
        system.makedirs(root, exist_ok=True)
        store.remove_partial_files()
        store.write(settings.NAME, current.encode())


def absolute_paths(args: argparse.Namespace) -> argparse.Namespace:
    """Returns the command's arguments for workers, whose working directory differs."""
    out = Store.from_url(args.out)
    changed = argparse.Namespace(**vars(args))
    if out.is_local:
        changed.out = out.root
    # Shipped weights may have another path on other nodes, so their name is not resolved.
    if args.ckpt is not None and (file := weights_file(args.ckpt)).parent != PRETRAINED:
        changed.ckpt = str(file.absolute())
    if args.detector not in detectors.NAMES:
        changed.detector = str(Path(args.detector).absolute())
    return changed


def run(
    system: Any, jobs: Sequence[Job], args: argparse.Namespace
) -> Iterator[tuple[Job, Outcome]]:
    """Parses photos on the cluster.

    Args:
        system: file system of the photos.
        jobs: the photos.
        args: the command's arguments, with the cluster's address as `ray`.

    Yields:
        Photos and their outcomes, in the order in which they finish.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        ChildProcessError: no actor starts; the message contains the reason.
    """
    import ray

    was_connected = ray.is_initialized()
    if not was_connected:
        ray.init(address=args.ray or None, log_to_driver=False)
    actors = ActorPool(ray, system, absolute_paths(args))
    # Tasks: photos or a video, and how many times they have been given to an actor.
    photos = [job for job in jobs if not job.is_video]
    tasks = [photos[i : i + JOBS_PER_TASK] for i in range(0, len(photos), JOBS_PER_TASK)]
    tasks += [[job] for job in jobs if job.is_video]
    pending = deque((task, 1) for task in tasks)
    try:
        num_actors = min(count_actors(ray), len(pending))
        for _ in range(num_actors):
            actors.start()
        unfinished_tasks, failed_starts = len(pending), 0
        while unfinished_tasks:
            # Idle actors also take the tasks of dead ones, since a new actor may find no place.
            while pending and actors.idle:
                actors.submit(actors.idle.pop(), pending.popleft())
            ref, actor, task = actors.wait()
            try:
                results = ray.get(ref)
            except ray.exceptions.RayActorError as error:
                failed_starts = failed_starts + 1 if task is None else 0
                if failed_starts < ATTEMPTS * num_actors:
                    actors.start()
                elif not actors.any_left():
                    reason = str(error).strip().splitlines()[-1]
                    raise ChildProcessError(f"no worker starts: {reason}") from error
                if task is None:
                    continue
                photos, attempt = task
                if attempt < ATTEMPTS:
                    # One by one, so that a photo that kills actors does not fail others with it.
                    pending.extend(([photo], attempt + 1) for photo in photos)
                    unfinished_tasks += len(photos) - 1
                else:
                    unfinished_tasks -= 1
                    message = f"{ATTEMPTS} workers died while parsing it"
                    yield from (
                        (photo, Outcome(error=f"{photo.photo}: {message}")) for photo in photos
                    )
                continue
            if task is not None:
                unfinished_tasks -= 1
                yield from zip(task[0], results, strict=True)
            actors.idle.append(actor)
    finally:
        actors.kill()
        if not was_connected:
            ray.shutdown()
            Store.from_url(args.out).remove_partial_files()  # of the workers, which have ended


def count_actors(ray: Any) -> int:
    """Returns the number of GPUs, or without GPUs the number of nodes that have a CPU."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    return gpus or max(len(nodes), 1)


class ActorPool:
    """The actors of a run: those that are idle, and those that start or work."""

    def __init__(self, ray: Any, system: Any, args: argparse.Namespace):
        on_gpu = ray.cluster_resources().get("GPU", 0) >= 1
        options = {"num_gpus": 1} if on_gpu else {"num_cpus": 1}
        self._ray = ray
        self._actor_class = ray.remote(Worker).options(scheduling_strategy="SPREAD", **options)
        self._actor_args = (system, vars(args))
        self._busy: dict[Any, tuple[Any, Any]] = {}
        self.idle: list[Any] = []

    def start(self) -> None:
        """Requests another actor; `wait` returns it once it has found a place and started."""
        actor = self._actor_class.remote(*self._actor_args)
        self._busy[actor.is_ready.remote()] = actor, None

    def submit(self, actor: Any, task: tuple[list[Job], int]) -> None:
        """Gives a task to an actor."""
        self._busy[actor.parse.remote(task[0])] = actor, task

    def any_left(self) -> bool:
        """Whether any actor is idle, working or starting."""
        return bool(self.idle or self._busy)

    def wait(self) -> tuple[Any, Any, Any]:
        """Waits until an actor finishes or dies; returns the reference, the actor, and its task."""
        (ref, *_), _ = self._ray.wait(list(self._busy), num_returns=1)
        return ref, *self._busy.pop(ref)

    def kill(self) -> None:
        """Ends all actors."""
        for actor in self.idle + [actor for actor, _ in self._busy.values()]:
            self._ray.kill(actor)


class Worker:
    """The class of the actors: a parser on one of the cluster's nodes."""

    def __init__(self, system: Any, args: dict[str, Any]):
        self._system = system
        self._args = argparse.Namespace(**args)
        self._out = Store.from_url(self._args.out)
        self._outputs = Outputs.from_arguments(self._args)
        self._out.remove_partial_files()  # of a worker that died on this node
        cache.enable_cache(None)
        self._parser = load_parser(self._args)

    def is_ready(self) -> bool:
        """Returns once the parser is loaded."""
        return True

    def parse(self, jobs: list[Job]) -> list[Outcome]:
        """Parses photos and writes their output files."""
        args, todo = self._args, set(jobs)
        if not args.overwrite:  # A dead actor may have finished some.
            todo = set(unfinished(jobs, args.out, self._outputs))
        outcomes = {job: Outcome() for job in jobs}
        with tempfile.TemporaryDirectory() as folder:
            local: dict[Job, Path] = {}
            for number, job in enumerate(job for job in jobs if job in todo):
                try:
                    local[job] = self._fetch(job, Path(folder, str(number)))
                except OSError as error:
                    outcomes[job] = Outcome(error=f"{job.photo}: {error}")
            photos = {job: path for job, path in local.items() if not job.is_video}
            options = stream_options(args)
            results = self._parser.stream(photos.values(), errors="yield", **options)
            for (job, path), result in zip(photos.items(), results, strict=True):
                outcomes[job] = self._outcome(job, path, partial(self._write_photo, result))
            for job in local.keys() - photos:
                outcomes[job] = self._outcome(job, local[job], self._write_video)
        return [outcomes[job] for job in jobs]

    def _fetch(self, job: Job, path: Path) -> Path:
        """Returns the local path of a photo, after copying it to `path` if it is remote."""
        if Store(self._system, "").is_local:
            return Path(job.photo)
        self._system.get_file(job.photo, str(path))
        return path

    def _outcome(
        self, job: Job, path: Path, write: Callable[[Job, Path, Path], Outcome]
    ) -> Outcome:
        """Writes the files of a photo or video.

        Args:
            job: the photo or video.
            path: its local path.
            write: writes the files below a local path without suffixes, its last argument.
        """
        root = self._out.root
        try:
            if self._out.is_local:
                outcome = write(job, path, Path(root) / job.name)
            else:
                with tempfile.TemporaryDirectory() as folder:
                    outcome = write(job, path, Path(folder) / job.name)
                    for name in self._outputs.file_names(job.name, outcome.num_faces or 0):
                        target = f"{root}/{name}"
                        self._out.system.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
                        self._out.system.put_file(f"{folder}/{name}", target)
        except (OSError, ValueError, OpenCVError) as error:
            outcome = Outcome.of_error(error)
        return outcome.renamed(str(path), job.photo)

    def _write_photo(
        self, result: PhotoResult | OSError | ValueError, job: Job, path: Path, base: Path
    ) -> Outcome:
        if isinstance(result, Exception):
            raise result
        writer.write_result(base, result, self._outputs, job.fingerprint)
        return Outcome.of_photo(len(result.faces), path, job.photo)

    def _write_video(self, job: Job, path: Path, base: Path) -> Outcome:
        options = stream_options(self._args)
        return video.parse_video(self._parser, path, base, self._outputs, job.fingerprint, options)


def _protocols(system: Any) -> tuple[str, ...]:
    protocol = system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
