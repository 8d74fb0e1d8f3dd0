"""Weights in files, and the original code's checkpoints."""
