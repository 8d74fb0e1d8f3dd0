"""Training: config, optimiser, state, step, loop."""
