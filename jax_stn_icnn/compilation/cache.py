"""The cache of compiled programs on disk: with it, a warm start traces nothing.

JAX's own cache is asked only once a program is traced and lowered, which for these networks takes
longer than all else in a start. Here a program is found by its description: what the caller says
it is made from, this package's source, the versions of the libraries, JAX's settings, the machine.
So a change of a file is seen; a function replaced at run time is not: then turn the cache off, by
`enable_cache("")`. For a class of another package, whose source is not looked at, nothing is
cached.

It is on from the start, since the first parse of a process takes ten times as long without. JAX's
own cache, which holds a program's every other computation too, is on if the program says so.
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
# Of the environment: read by XLA, and not among JAX's settings.
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
# What JAX says of a program that its own cache lacks.
MISSED = "/jax/compilation_cache/cache_misses"

LOG = logging.getLogger(__name__)

Value = TypeVar("Value")


def enable_cache(directory: str | None = None) -> None:
    """Has JAX cache all that it compiles in a directory, or turns all caching off.

    JAX finds a program by what it does, for what machine and by which version; one that changed is
    compiled anew. Programs that are cached whole lie there too, if it is a local directory; without
    this call they lie in DIRECTORY, and JAX caches nothing. The directory only grows, and may be
    removed at any time.

    Args:
        directory: where; created if missing; a path, or a URL that JAX can write to, such as
            gs://. Empty: nowhere. None: where JAX is told to by `JAX_COMPILATION_CACHE_DIR`, else
            DIRECTORY.
    """
    if directory is None:
        directory = jax.config.values["jax_compilation_cache_dir"] or DIRECTORY
    jax.config.update("jax_compilation_cache_dir", _in_full(directory) if directory else "")
    # By default only what took a second: the many small programs of a start take longer together.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def cached_value(name: str, made_from: Sequence[Any], make: Callable[[], Value]) -> Value:
    """Makes a value, or takes it from disk.

    Args:
        name: what it is.
        made_from: everything that it depends on, besides this package and where it runs; what
            differs must have another `repr`.
        make: makes it; something that pickles.

    Returns:
        The value.
    """
    path = _path(name, made_from)
    value = _read(path)
    if value is None:
        value = make()
        _write(path, value)
    return value


def cached_program(
    name: str,
    made_from: Sequence[Any],
    lower: Callable[[], Lowered],
    compile: Callable[[Lowered], Compiled],
    devices: Sequence[jax.Device],
) -> Compiled:
    """Compiles a program, or takes it from disk.

    Args:
        name: what it is.
        made_from: as for `cached_value`.
        lower: traces and lowers it.
        compile: compiles it.
        devices: all that it runs on, of this process.

    Returns:
        The compiled program.
    """
    path = _path(name, [*made_from, [device.id for device in devices]])
    found = _read(path)
    if found is not None:
        program, inputs, outputs = found
        return serialize_executable.deserialize_and_load(
            program, inputs, outputs, execution_devices=devices
        )
    lowered = lower()
    with _noting_compilations() as compiled:
        program = compile(lowered)
    # What JAX's own cache gave cannot be written again on CPU: it would lack its functions.
    if compiled or not jax.config.values["jax_compilation_cache_dir"]:
        _write(path, serialize_executable.serialize(program))
    return program


@contextlib.contextmanager
def _noting_compilations() -> Iterator[list[str]]:
    """Lists what was not in JAX's own cache, and so was compiled; nothing where that is off.

    What other threads compile meanwhile is not listed.
    """
    found: list[str] = []
    here = threading.get_ident()

    def note(event: str, **_: object) -> None:
        if event == MISSED and threading.get_ident() == here:
            found.append(event)

    jax.monitoring.register_event_listener(note)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(note)


def shapes_and_types(tree: Any) -> str:
    """What a program is compiled for: the shapes and types of a tree of arrays, as text."""
    return str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), tree))


def _in_full(directory: str) -> str:
    """A directory's path without ~; a URL as it is, which `Path` would make another."""
    return directory if _is_url(directory) else str(Path(directory).expanduser())


def _is_url(directory: str) -> bool:
    return "://" in directory


def _path(name: str, made_from: Sequence[Any]) -> Path | None:
    """Where it is kept; None if it is not to be."""
    directory = jax.config.values["jax_compilation_cache_dir"]
    if directory is None:  # Empty: turned off.
        try:
            directory = _in_full(DIRECTORY)
        except RuntimeError:  # A user without a home, as in some containers.
            return None
    packages = {type(part).__module__.split(".")[0] for part in made_from}
    if not directory or _is_url(directory) or not packages <= {"builtins", PACKAGE.name}:
        return None
    described = f"{name}\n{list(made_from)}\n{_surroundings()}"
    return Path(directory, FOLDER, hashlib.sha256(described.encode()).hexdigest())


def _surroundings() -> str:
    """What any program depends on that its maker does not name."""
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
    """What the processor can do: programs for CPU use all of it, and fail where it is missing."""
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return f"{platform.machine()} {platform.processor()}"
    lines = described.read_text().splitlines()
    told = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return repr(sorted(set(told)))


def _read(path: Path | None) -> Any:
    """What a file holds; None if it is not there, or cannot be read."""
    if path is None:
        return None
    try:
        return pickle.loads(zlib.decompress(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, zlib.error) as error:
        LOG.warning("%s cannot be read (%s); making it anew", path, error)
        return None


def _write(path: Path | None, value: Any) -> None:
    """Writes a file that is whole or not there, whoever else is writing the same.

    A directory that cannot be written to costs only time, so it ends nothing.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
            partial.write(zlib.compress(pickle.dumps(value), level=1))
        os.replace(partial.name, path)
    except OSError as error:
        LOG.warning("%s cannot be written (%s); the next start makes it again", path, error)
