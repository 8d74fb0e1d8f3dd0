"""STN-iCNN in JAX: end-to-end face parsing with interlinked convolutional networks."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

# First: it records the state of the source files before any other module is imported.
from jax_stn_icnn.compilation import source as _source  # noqa: F401

if TYPE_CHECKING:
    from jax_stn_icnn.inference.parser import FaceParser
    from jax_stn_icnn.inference.results import FaceResult, PhotoResult
    from jax_stn_icnn.models.config import ModelConfig

__all__ = ["FaceParser", "FaceResult", "ModelConfig", "PhotoResult", "__version__"]

__version__ = importlib.metadata.version("jax-stn-icnn")

# Imported on first access, because the parser imports JAX.
_MODULES = {
    "FaceParser": "inference.parser",
    "FaceResult": "inference.results",
    "PhotoResult": "inference.results",
    "ModelConfig": "models.config",
}


def __getattr__(name: str) -> Any:
    """Imports a public class from its module."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
