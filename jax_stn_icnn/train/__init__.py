"""Training: config, stages, losses, optimiser, state, step and loop."""
