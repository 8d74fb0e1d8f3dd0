"""Synthetic faces: importing this package registers the builder with TFDS."""

# Relative, so that TFDS's own tools, which import this folder under another name, register it once.
from .synthetic_faces_dataset_builder import Builder as Builder
