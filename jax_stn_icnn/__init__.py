"""STN-iCNN in JAX: end-to-end face parsing with interlinked convolutional networks."""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax_stn_icnn.inference.parser import FaceParser

__all__ = ["FaceParser", "__version__"]

# Of the installed package: pyproject.toml says it.
__version__ = importlib.metadata.version("jax-stn-icnn")


def __getattr__(name: str) -> Any:
    """Imports the parser, and with it JAX, when it is first asked for."""
    if name == "FaceParser":
        from jax_stn_icnn.inference.parser import FaceParser

        return FaceParser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
