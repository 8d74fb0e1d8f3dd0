"""Orders in which records are read.

This module does not import JAX; see `loader`.
"""

import grain

from jax_stn_icnn.data.rare import RareClasses


def make_order(count: int, batch_size: int, seed: int, train: bool) -> grain.MapDataset[int]:
    """Returns the indices of the records of all processes; those from `count` on are padding.

    Args:
        count: Number of records.
        batch_size: Number of examples in the global batch, of which an evaluation has whole ones.
        seed: Seed of the training order.
        train: Whether records are shuffled and repeated.

    Raises:
        ValueError: There are no records.
    """
    if count == 0:
        raise ValueError("the source has no records")
    if train:
        return grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    num_batches = -(-count // batch_size)
    return grain.MapDataset.range(num_batches * batch_size)


def oversample(order: grain.MapDataset[int], rare: RareClasses, seed: int) -> grain.MapDataset[int]:
    """Returns an order of which a share is drawn from the records of rare classes.

    Args:
        order: The order of all records, which determines the rest; endless.
        rare: The rare classes, each with an equal part of the share. The records of each are
            shuffled and repeated by themselves.
        seed: Seed of the training order.
    """
    rest = [(order, 1 - rare.share)] if rare.share < 1 else []
    orders = [
        (
            grain.MapDataset.source(records).seed(further_seed(seed, -1 - i)).shuffle().repeat(),
            rare.share / len(rare.records),
        )
        for i, records in enumerate(rare.records)
    ]
    mixed, weights = zip(*(rest + orders), strict=True)
    return grain.MapDataset.mix(mixed, weights)


def further_seed(seed: int, place: int) -> int:
    """Returns the seed of a further order, in 0 .. 2**32 - 1; place 0 is that of all records."""
    return (seed + place) % 2**32
