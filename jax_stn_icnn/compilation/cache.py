"""The cache of compiled programs on disk: with it, a warm start traces nothing.

JAX's own cache is consulted only after a program is traced and lowered, which for these networks
takes longer than the rest of a start. Here a program is found by a key that describes it: what the
caller passes, the source of this package, the versions of the libraries, JAX's settings and the
machine. A changed file therefore changes the key; a function replaced at run time does not, in
which case the cache must be turned off by `enable_cache("")`. Nothing is cached for a class of
another package, whose source is not part of the key.

It is on by default, since the first parse of a process takes ten times as long without it. JAX's
own cache, which stores all other compiled functions too, is on if the program turns it on.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import os
import pickle
import platform
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax.experimental import serialize_executable
from jax.stages import Compiled, Lowered

DIRECTORY = "~/.cache/jax_stn_icnn"
HELP = (
    "Directory of compiled programs; empty for none. By default JAX_COMPILATION_CACHE_DIR, else "
    f"{DIRECTORY}."
)
FOLDER = "stn_icnn"
PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
# Environment variables that XLA reads and that are not among JAX's settings.
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
# JAX's event for a program that its own cache lacks.
MISSED = "/jax/compilation_cache/cache_misses"

LOG = logging.getLogger(__name__)

Value = TypeVar("Value")


def enable_cache(directory: str | None = None) -> None:
    """Turns on JAX's own cache in a directory, or turns all caching off.

    The programs of this module are stored there too, if it is a local directory; without this call
    they are stored in DIRECTORY, and JAX caches nothing. The directory only grows, and may be
    removed at any time.

    Args:
        directory: A path, created if missing, or a URL that JAX can write to, such as gs://. An
            empty string turns caching off. None stands for `JAX_COMPILATION_CACHE_DIR`, or for
            DIRECTORY if that is not set.
    """
    if directory is None:
        directory = jax.config.values["jax_compilation_cache_dir"] or DIRECTORY
    jax.config.update("jax_compilation_cache_dir", _expand(directory) if directory else "")
    # JAX's default caches only what takes a second to compile, but a start compiles many programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def cached_value(name: str, key: Sequence[Any], compute: Callable[[], Value]) -> Value:
    """Returns a value, computed or read from disk.

    Args:
        name: Name of the value.
        key: Everything that the value depends on, besides this package and its environment;
            different values must have different `repr`s.
        compute: Computes the value, which must pickle.

    Returns:
        The value.
    """
    path = _path(name, key)
    value = _read(path)
    if value is None:
        value = compute()
        _write(path, value)
    return value


def cached_program(
    name: str,
    key: Sequence[Any],
    lower: Callable[[], Lowered],
    compile: Callable[[Lowered], Compiled],
    devices: Sequence[jax.Device],
) -> Compiled:
    """Returns a program, compiled or read from disk.

    Args:
        name: Name of the program.
        key: As for `cached_value`.
        lower: Traces and lowers the program.
        compile: Compiles it.
        devices: Devices of this process that it runs on.

    Returns:
        The compiled program.
    """
    path = _path(name, [*key, [(device.platform, device.id) for device in devices]])
    found = _read(path)
    if found is not None:
        program, inputs, outputs = found
        return serialize_executable.deserialize_and_load(
            program, inputs, outputs, execution_devices=devices
        )
    lowered = lower()
    with _record_compilations() as compiled:
        program = compile(lowered)
    # A program from JAX's own cache cannot be serialized on a CPU: its functions would be missing.
    if compiled or not jax.config.values["jax_compilation_cache_dir"]:
        _write(path, serialize_executable.serialize(program))
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


def _expand(directory: str) -> str:
    """Returns a directory's path with ~ expanded; a URL is returned as it is."""
    return directory if _is_url(directory) else str(Path(directory).expanduser())


def _is_url(directory: str) -> bool:
    return "://" in directory


def _path(name: str, key: Sequence[Any]) -> Path | None:
    """Returns the path of an entry; None if it is not to be cached."""
    directory = jax.config.values["jax_compilation_cache_dir"]
    if directory is None:  # An empty string turns the cache off.
        try:
            directory = _expand(DIRECTORY)
        except RuntimeError:  # A user without a home, as in some containers
            return None
    packages = {type(part).__module__.split(".")[0] for part in key}
    if not directory or _is_url(directory) or not packages <= {"builtins", PACKAGE.name}:
        return None
    described = f"{name}\n{list(key)}\n{_environment()}"
    return Path(directory, FOLDER, hashlib.sha256(described.encode()).hexdigest())


def _environment() -> str:
    """Returns everything that every program depends on, as text."""
    client = jax.local_devices()[0].client
    parts = {
        "source": _source(),
        "versions": [importlib.metadata.version(library) for library in LIBRARIES],
        "settings": sorted(jax.config.values.items()),
        "variables": [os.environ.get(name) for name in VARIABLES],
        "platform": (client.platform, client.platform_version),
        "devices": [device.device_kind for device in jax.devices()],
        "processor": _processor(),
    }
    return repr(parts)


@functools.cache
def _source() -> str:
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(f"{path.relative_to(PACKAGE)}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


@functools.cache
def _processor() -> str:
    """Returns the features of the processor: a program for a CPU fails where one is missing."""
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return f"{platform.machine()} {platform.processor()}"
    lines = described.read_text().splitlines()
    features = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return repr(sorted(set(features)))


def _read(path: Path | None) -> Any:
    """Returns the contents of an entry; None if it does not exist or cannot be read."""
    if path is None:
        return None
    try:
        return pickle.loads(zlib.decompress(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, zlib.error) as error:
        LOG.warning("%s cannot be read (%s); it is computed again", path, error)
        return None


def _write(path: Path | None, value: Any) -> None:
    """Writes an entry atomically, whichever other process writes the same.

    A directory that cannot be written to costs only time, so that is only a warning.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
            partial.write(zlib.compress(pickle.dumps(value), level=1))
        os.replace(partial.name, path)
    except OSError as error:
        LOG.warning("%s cannot be written (%s); the next start computes it again", path, error)
