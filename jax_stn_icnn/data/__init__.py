"""The data: batches of records, their augmentation, and the inputs and targets of training."""
