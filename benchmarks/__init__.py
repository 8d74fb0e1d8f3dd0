"""Speed and memory against PyTorch and other JAX libraries: `python -m benchmarks.run`."""
