"""Inference on photos: the parser and its results."""
