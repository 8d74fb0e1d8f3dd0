"""Synthetic portraits: importing this package registers the builder."""

# Relative: TFDS imports this folder under another name and must register the builder once.
from .synthetic_portraits_dataset_builder import Builder as Builder
