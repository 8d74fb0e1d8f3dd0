"""The folds of an example's key that draws beside its augmentation take, one for each use.

They lie beyond all numbers of keys that anything splits into: by JAX's default the fold of 2 is the
same key as the third of a split.
"""

JITTER, MIRROR, PHOTO, WIDEN, UNLABELLED = range(1000, 1005)
# Of the key of one photographic operation.
OWN = 1005
