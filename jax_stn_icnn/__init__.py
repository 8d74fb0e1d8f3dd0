"""STN-iCNN in JAX: end-to-end face parsing with interlinked convolutional networks."""
