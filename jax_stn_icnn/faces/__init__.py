"""Face detection, framing, and resampling between photo and frame."""
