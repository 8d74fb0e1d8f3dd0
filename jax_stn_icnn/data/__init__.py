"""The data: records as batches of frames, what the networks see of them, augmentation."""
