"""Inference on photos: the parser, the stream of photos, the results."""
