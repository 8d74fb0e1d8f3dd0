"""Files: weights, checkpoints of the original code, and export to ONNX and StableHLO."""
