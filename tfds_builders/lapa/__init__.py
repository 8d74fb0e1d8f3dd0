"""LaPa: importing this package registers the builder with TFDS."""

# Relative, because TFDS's tools import this folder under another name and must register it once.
from .lapa_dataset_builder import Builder as Builder
