"""Synthetic faces: importing this package registers the builder where TFDS is installed."""

import importlib.util

# The drawings alone also verify exported files, which does not require the extra `train`.
if importlib.util.find_spec("tensorflow_datasets"):
    # Relative: TFDS imports this folder under another name and must register the builder once.
    from .synthetic_faces_dataset_builder import Builder as Builder
