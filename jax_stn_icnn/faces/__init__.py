"""Faces in photos: detection, framing, resampling between photo and frame."""
