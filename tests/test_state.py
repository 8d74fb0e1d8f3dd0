import os
import re

import grain
import jax
import numpy as np
import pytest

from jax_stn_icnn.train.checkpoints import CHECKPOINTS, CHECKSUMS, METADATA, Checkpoints
from jax_stn_icnn.train.state import TrainState


def make_state(step, seed=0):
    rng = np.random.default_rng(seed)
    return TrainState(
        np.int32(step),
        {"coarse": {"w": rng.random((3, 2), np.float32)}},
        {"coarse": {"mean": rng.random(2, np.float32)}},
        ({"mu": rng.random((3, 2), np.float32), "count": np.int32(step)},),
    )


def make_iterator():
    order = grain.MapDataset.range(100).seed(3).shuffle().repeat().batch(2)
    return iter(order.to_iter_dataset())


def test_a_checkpoint_restores_everything_exactly(tmp_path):
    iterator = make_iterator()
    for _ in range(5):
        next(iterator)
    checkpoints = Checkpoints(tmp_path)
    state, record = make_state(5, seed=1), {"stage": "coarse", "seed": 7}
    checkpoints.save(state, iterator, record, rank=0.5)
    expected = [next(iterator) for _ in range(3)]
    checkpoints.close()

    checkpoints, iterator = Checkpoints(tmp_path), make_iterator()
    assert checkpoints.latest_step == 5
    assert checkpoints.read_record(5) == record
    restored = checkpoints.restore(5, make_state(0), iterator)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    np.testing.assert_array_equal([next(iterator) for _ in range(3)], expected)


def test_the_latest_two_and_the_best_are_stored(tmp_path):
    checkpoints, iterator = Checkpoints(tmp_path), make_iterator()
    ranks = {1: 0.1, 2: 0.9, 3: 0.3, 4: None, 5: 0.4, 6: None}
    for step, rank in ranks.items():
        checkpoints.save(make_state(step), iterator, {}, rank)
    checkpoints.close()
    assert {int(path.name) for path in (tmp_path / "checkpoints").iterdir()} == {2, 5, 6}


def test_an_incomplete_checkpoint_is_ignored(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make_state(3), make_iterator(), {}, 0.5)
    checkpoints.close()
    half = tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step == 3
    checkpoints.close()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"init_timestamp_nsecs": [1]}', b"9" * 5000, b"[" * 10**5]
)
def test_a_checkpoint_is_restored_without_orbax_metadata(content, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make_state(3), make_iterator(), {}, 0.5)
    checkpoints.close()
    (tmp_path / CHECKPOINTS / "3" / METADATA).write_bytes(content)
    checkpoints, iterator = Checkpoints(tmp_path), make_iterator()
    assert checkpoints.remove_damaged() == []
    restored = checkpoints.restore(3, make_state(0), iterator)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restored, make_state(3))


@pytest.mark.parametrize("pattern", ["record/*", "state/_METADATA"])
def test_a_damaged_checkpoint_without_checksums_is_named(pattern, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make_state(3), make_iterator(), {}, 0.5)
    checkpoints.wait()
    (tmp_path / CHECKPOINTS / "3" / CHECKSUMS).unlink()
    for path in (tmp_path / CHECKPOINTS / "3").glob(pattern):
        path.write_bytes(b"{")
    with pytest.raises(ValueError, match=f"^{tmp_path}/checkpoints/3 cannot be restored"):
        checkpoints.read_record(3)
        checkpoints.restore(3, make_state(0))
    checkpoints.close()


def empty(path):
    path.write_bytes(b"")


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "pattern", "problem"),
    [
        (truncate, "state/ocdbt.process_0/d/*", "state/.* does not match its checksum"),
        (zero, "state/ocdbt.process_0/d/*", "state/.* does not match its checksum"),
        (os.remove, "state/_METADATA", "'state/_METADATA' is missing"),
        (empty, "record/*", "record/.* does not match its checksum"),
        (empty, "data/*", "data/.* does not match its checksum"),
        (empty, CHECKSUMS, f"{CHECKSUMS} is empty"),
        (zero, CHECKSUMS, "is missing"),
    ],
)
def test_damaged_checkpoints_are_removed_unless_all_are(damage, pattern, problem, tmp_path):
    checkpoints, iterator = Checkpoints(tmp_path), make_iterator()
    for step in (3, 4):
        checkpoints.save(make_state(step), iterator, {}, step)
    checkpoints.wait()
    assert checkpoints.remove_damaged() == []
    for path in (tmp_path / CHECKPOINTS / "4").glob(pattern):
        damage(path)
    (line,) = checkpoints.remove_damaged()
    assert re.fullmatch(f"{tmp_path}/checkpoints/4 is damaged: .*{problem}", line)
    assert checkpoints.latest_step == 3
    for path in (tmp_path / CHECKPOINTS / "3").glob(pattern):
        damage(path)
    with pytest.raises(ValueError, match=r"all checkpoints are damaged \(.*checkpoints/3 is"):
        checkpoints.remove_damaged()
    assert checkpoints.latest_step == 3
    checkpoints.close()
