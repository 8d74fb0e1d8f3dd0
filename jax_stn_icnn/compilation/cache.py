"""The cache of compiled programs on disk: with it, a warm start traces nothing.

JAX's own cache is consulted only after a program is traced and lowered, which for these networks
takes longer than the rest of a start. Here a program is found by a key that describes it: what the
caller passes, the source of this package, the versions of the libraries, JAX's settings and the
machine. A changed file therefore changes the key, and a process that may have imported an older
version of it caches nothing. A function replaced at run time does not change the key; whoever does
that turns the cache off by `enable_cache("")`. Nothing is cached for a class of another package,
whose source is not part of the key.

It is on by default, since the first parse of a process takes ten times as long without it. JAX's
own cache, which stores all other compiled functions too, is on if the program turns it on.
Neither is read where other users can write (`entries.py`).
"""

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.stages import Compiled, Lowered

from jax_stn_icnn.compilation import entries
from jax_stn_icnn.compilation.program import Program, serialize
from jax_stn_icnn.compilation.source import PACKAGE, source_hash

DIRECTORY = "~/.cache/jax_stn_icnn"
HELP = (
    "Directory of compiled programs; empty for none. By default JAX_COMPILATION_CACHE_DIR, else "
    f"{DIRECTORY}."
)
FOLDER = "stn_icnn"
# The names of the files of JAX's own cache.
OF_JAX = "*-cache"
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
# Environment variables that XLA reads and that are not among JAX's settings.
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
# JAX's event for a program that its own cache lacks.
MISSED = "/jax/compilation_cache/cache_misses"

LOG = logging.getLogger(__name__)


def enable_cache(directory: str | None = None) -> None:
    """Turns on JAX's own cache in a directory, or turns all caching off.

    The programs of this module are stored there too, if it is a local directory; without this call
    they are stored in DIRECTORY, and JAX caches nothing. The directory may be removed at any time.
    If it cannot be written to, or if other users can, caching is turned off with a warning.

    The programs of this module have at most `entries.MAX_BYTES`, and so has JAX's cache after this
    call: the oldest are removed. In the directory of `JAX_COMPILATION_CACHE_DIR`, JAX's settings
    alone bound JAX's cache.

    Args:
        directory: A path, created if missing, or a URL that JAX can write to, such as gs://. An
            empty string turns caching off. None stands for `JAX_COMPILATION_CACHE_DIR`, or for
            DIRECTORY if that is not set.
    """
    set_in_jax = jax.config.values["jax_compilation_cache_dir"] if directory is None else None
    directory = _expand(set_in_jax or DIRECTORY if directory is None else directory)
    if directory and not _is_url(directory):
        directory = directory if _prepare(Path(directory), bounded=not set_in_jax) else ""
    jax.config.update("jax_compilation_cache_dir", directory)
    # JAX's default caches only what takes a second to compile, but a start compiles many programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def list_entries() -> tuple[str, list[Path]]:
    """Returns what is cached.

    Returns:
        The directory, empty if caching is off, and the files in it: the programs of this module,
        and the functions in JAX's own cache.
    """
    directory = _directory()
    if not directory or _is_url(directory):
        return directory, []
    path = Path(directory)
    return directory, sorted([*path.joinpath(FOLDER).glob("*"), *path.glob(OF_JAX)])


def cached_value(name: str, key: Sequence[Any], compute: Callable[[], Any]) -> Any:
    """Returns a value, computed or read from disk.

    Args:
        name: Name of the value.
        key: Everything that the value depends on, besides this package and its environment;
            different values must have different `repr`s.
        compute: Computes the value, which JSON must represent: numbers, strings, lists, and dicts
            with strings as keys.

    Returns:
        The value.
    """
    path = _path(name, key)
    data = None if path is None else entries.read(path)
    if data is not None:
        return json.loads(data)
    value = compute()
    if path is not None:
        entries.write(path, json.dumps(value).encode())
    return value


def is_cached(name: str, key: Sequence[Any], devices: Sequence[jax.Device]) -> bool:
    """Whether `cached_program` would read a program from disk; its arguments are those."""
    path = _path(name, [*key, [device.id for device in devices]])
    return path is not None and path.exists()


def cached_program(
    name: str,
    key: Sequence[Any],
    lower: Callable[[], Lowered],
    compile: Callable[[Lowered], Compiled],
    devices: Sequence[jax.Device],
) -> Compiled | Program:
    """Returns a program, compiled or read from disk.

    Args:
        name: Name of the program.
        key: As for `cached_value`.
        lower: Traces and lowers the program, whose outputs are trees of dicts and tuples.
        compile: Compiles it.
        devices: Devices of this process that it runs on.

    Returns:
        The compiled program, a function of trees of arrays.
    """
    path = _path(name, [*key, [device.id for device in devices]])
    if path is None:
        return compile(lower())
    data = entries.read(path)
    if data is not None:
        try:
            return Program(data, devices)
        except jax.errors.JaxRuntimeError as error:
            LOG.warning("%s cannot be loaded (%s); it is compiled again", path, error)
    lowered = lower()
    with _record_compilations() as compiled:
        program = compile(lowered)
    # A program from JAX's own cache cannot be serialized on a CPU: its functions would be missing.
    if compiled or not jax.config.values["jax_compilation_cache_dir"]:
        entries.write(path, serialize(program, devices))
    return program


@contextlib.contextmanager
def _record_compilations() -> Iterator[list[str]]:
    """Yields a list that records what this thread compiles; empty if JAX's own cache is off."""
    found: list[str] = []
    thread = threading.get_ident()

    def record(event: str, **_: object) -> None:
        if event == MISSED and threading.get_ident() == thread:
            found.append(event)

    jax.monitoring.register_event_listener(record)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(record)


def shapes_and_types(tree: Any) -> str:
    """Returns the shapes and types of a tree of arrays, as text for a key."""
    return str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), tree))


def _prepare(directory: Path, bounded: bool) -> bool:
    """Creates the directory of JAX's cache, and makes room in it; returns whether it is usable."""
    try:
        entries.make_directory(directory)
        if bounded:
            entries.remove_oldest(directory.glob(OF_JAX))
        if not os.access(directory, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        entries.warn_not_writable(directory, error)
        return False
    return entries.is_trusted(directory)


def _expand(directory: str) -> str:
    """Returns a directory's path with ~ expanded; a URL is returned as it is."""
    if not directory or _is_url(directory):
        return directory
    try:
        return str(Path(directory).expanduser())
    except RuntimeError:  # A user without a home, as in some containers
        entries.warn_once(f"{directory}: no home directory; compiled programs are not cached")
        return ""


def _is_url(directory: str) -> bool:
    return "://" in directory


def _directory() -> str:
    """Returns the path or URL of the cache; empty if it is off."""
    directory = jax.config.values["jax_compilation_cache_dir"]
    # An empty string turns the cache off.
    return _expand(DIRECTORY if directory is None else directory)


def _path(name: str, key: Sequence[Any]) -> Path | None:
    """Returns the path of an entry; None if it is not to be cached."""
    directory = _directory()
    packages = {type(part).__module__.split(".")[0] for part in key}
    if not directory or _is_url(directory) or not packages <= {"builtins", PACKAGE.name}:
        return None
    source = source_hash()
    if source is None:
        entries.warn_once(
            f"Files in {PACKAGE} have changed since this process imported them; its compiled "
            "programs are not cached"
        )
        return None
    described = f"{name}\n{list(key)}\n{source}\n{_environment()}"
    return Path(directory, FOLDER, hashlib.sha256(described.encode()).hexdigest())


def _environment() -> str:
    """Returns everything that every program depends on, as text."""
    client = jax.local_devices()[0].client
    parts = {
        "versions": [importlib.metadata.version(library) for library in LIBRARIES],
        "settings": sorted(jax.config.values.items()),
        "variables": [os.environ.get(name) for name in VARIABLES],
        "platform": (client.platform, client.platform_version),
        "devices": [device.device_kind for device in jax.devices()],
        "processor": _processor(),
    }
    return repr(parts)


@functools.cache
def _processor() -> str:
    """Returns the features of the processor: a program for a CPU fails where one is missing."""
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return f"{platform.machine()} {platform.processor()}"
    lines = described.read_text().splitlines()
    features = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return repr(sorted(set(features)))
