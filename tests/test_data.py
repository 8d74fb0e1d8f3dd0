import subprocess
import sys

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jax_stn_icnn import geometry
from jax_stn_icnn.anatomy import DATA_SETS, NINE
from jax_stn_icnn.data.loader import loader_over
from jax_stn_icnn.label_sets import class_sets

SIZE = 16
FIELDS = {
    "frame": (np.uint8, (SIZE, SIZE, 3)),
    "labels": (np.uint8, (SIZE, SIZE)),
    "region": (np.float32, (2, 3)),
    "index": (np.int32, ()),
    "position": (np.int32, ()),
    "mask": (np.bool_, ()),
    "has_parts": (np.bool_, ()),
}


class Uniform:
    """Records in memory, with colours that depend on the index."""

    def __init__(self, count, shape=(SIZE, SIZE), label_shape=None):
        self._count, self._shape, self._label_shape = count, shape, label_shape or shape

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return {
            "image": np.full((*self._shape, 3), index + 1, np.uint8),
            "label": np.full((*self._label_shape, 1), index % 11, np.uint8),
            "name": b"face_%d" % index,
        }


class Single:
    """One record."""

    def __init__(self, image, label, name=b"the_face"):
        self._record = {"image": image, "label": label[..., None], "name": name}

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self._record


def loader_of(source, dataset="synthetic_faces", **kwargs):
    defaults = {"frame_size": SIZE, "batch_size": 4, "seed": 0, "train": True}
    return loader_over(source, dataset, NINE, **defaults | kwargs)


def take(loader, count):
    iterator = iter(loader)
    return [next(iterator) for _ in range(count)]


def indices(batches):
    return [batch["index"].tolist() for batch in batches]


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for field in batch:
            np.testing.assert_array_equal(batch[field], other[field])


@pytest.mark.parametrize("train", [True, False])
def test_fields(train):
    (batch,) = take(loader_of(Uniform(9), train=train), 1)
    assert batch.keys() == FIELDS.keys()
    for field, (dtype, shape) in FIELDS.items():
        assert batch[field].dtype == dtype and batch[field].shape == (4, *shape), field
    np.testing.assert_array_equal(batch["frame"][:, 0, 0, 0], batch["index"] + 1)
    np.testing.assert_array_equal(batch["position"], np.arange(4))
    assert batch["mask"].all()


def test_the_seed_determines_the_order():
    first, again = (take(loader_of(Uniform(37), seed=5), 25) for _ in range(2))
    assert_equal(first, again)
    assert indices(first) != indices(take(loader_of(Uniform(37), seed=6), 25))


@pytest.mark.parametrize("count", [20, 37])
def test_each_epoch_contains_every_record_once(count):
    order = np.concatenate(indices(take(loader_of(Uniform(count)), 3 * count // 4)))
    epochs = order[: 2 * count].reshape(2, count)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(count), (2, 1)))
    assert epochs[0].tolist() != epochs[1].tolist() and epochs[0].tolist() != list(range(count))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("count", [24, 37])
@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_each_global_batch(train, count, process_count):
    num_batches = -(-count // 8)
    options = {"train": train, "batch_size": 8}
    expected = take(loader_of(Uniform(count), **options), num_batches)
    shares = [
        take(
            loader_of(
                Uniform(count), **options, process_index=process, process_count=process_count
            ),
            num_batches,
        )
        for process in range(process_count)
    ]
    for n, batch in enumerate(expected):
        merged = {field: np.concatenate([share[n][field] for share in shares]) for field in batch}
        by_position = np.argsort(merged["position"])
        assert_equal([{f: values[by_position] for f, values in merged.items()}], [batch])
    seen = np.concatenate([batch["index"] for share in shares for batch in share])
    seen = seen[seen >= 0]
    if not train or count % 8 == 0:
        np.testing.assert_array_equal(np.sort(seen), np.arange(count))


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_has_every_record_once_in_order_and_masks_the_padding(process_count):
    every = [
        list(loader_of(Uniform(9), train=False, process_index=process, process_count=process_count))
        for process in range(process_count)
    ]
    assert [len(batches) for batches in every] == [3] * process_count
    index, mask = (
        np.stack([np.concatenate([batch[f] for batch in share]) for share in every], 1).ravel()
        for f in ("index", "mask")
    )
    np.testing.assert_array_equal(mask, np.arange(12) < 9)
    np.testing.assert_array_equal(index[mask], np.arange(9))
    np.testing.assert_array_equal(index[~mask], -1)
    for batch in every[-1][-1:]:
        padding = ~batch["mask"]
        assert padding.any() and not batch["frame"][padding].any()
        assert not batch["labels"][padding].any()
        np.testing.assert_array_equal(batch["region"][padding][:, 0, 0], 1)


def test_no_empty_batch_follows_a_full_last_one():
    batches = list(loader_of(Uniform(8), train=False))
    assert indices(batches) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("done", [0, 1, 3])
def test_state_resumes_exactly(train, done):
    loader = loader_of(Uniform(21), train=train)
    wanted = take(loader, 6)
    iterator = iter(loader)
    for _ in range(done):
        next(iterator)
    state = iterator.get_state()
    assert state == {"next_index": done}
    fresh = iter(loader_of(Uniform(21), train=train))
    fresh.set_state(state)
    assert_equal([next(fresh) for _ in range(6 - done)], wanted[done:])


def test_the_state_is_valid_for_another_number_of_processes():
    wanted = take(loader_of(Uniform(21), batch_size=4), 5)
    alone = iter(loader_of(Uniform(21), batch_size=4))
    for _ in range(3):
        next(alone)
    shares = []
    for process in range(2):
        share = iter(loader_of(Uniform(21), batch_size=4, process_index=process, process_count=2))
        share.set_state(alone.get_state())
        shares.append(next(share)["index"])
    np.testing.assert_array_equal(np.stack(shares, 1).ravel(), wanted[3]["index"])


def test_orbax_resumes_exactly(tmp_path):
    wanted = take(loader_of(Uniform(21)), 9)
    with ocp.CheckpointManager(tmp_path) as manager:
        iterator = iter(loader_of(Uniform(21)))
        for _ in range(3):
            next(iterator)
        saved = ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator))
        manager.save(3, args=saved)
        manager.wait_until_finished()
        # Advancing the old iterator does not change the saved position.
        assert_equal([next(iterator)], wanted[3:4])
        fresh = iter(loader_of(Uniform(21)))
        restored = ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh))
        manager.restore(3, args=restored)
    assert_equal([next(fresh) for _ in range(6)], wanted[3:])


WORKER_SCRIPT = """
import os, signal
import jax  # With it, workers would need absl flags.
import numpy as np
from jax_stn_icnn.anatomy import NINE
from jax_stn_icnn.data.loader import loader_over
from tests.test_data import Uniform

def loader(num_workers):
    return loader_over(
        Uniform(21), "synthetic_faces", NINE, frame_size=16, batch_size=4, seed=0, train=True,
        num_workers=num_workers,
    )

if __name__ == "__main__":
    alone = iter(loader(0))
    wanted = [next(alone) for _ in range(9)]
    workers = iter(loader(2))
    found = [next(workers) for _ in range(4)]
    state = workers.get_state()
    workers.set_state(state)
    found.append(next(workers))
    signal.signal(signal.SIGINT, lambda *_: None)
    os.killpg(0, signal.SIGINT)  # as Ctrl+C in a terminal
    found += [next(workers) for _ in range(4)]
    workers.close()
    for one, other in zip(wanted, found, strict=True):
        for field in one:
            np.testing.assert_array_equal(one[field], other[field])
    print("same batches")
"""


@pytest.mark.slow
def test_workers_load_the_same_batches_without_absl(tmp_path, request):
    script = tmp_path / "script.py"
    script.write_text(WORKER_SCRIPT)
    finished = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(request.config.rootpath), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,  # so that the signal reaches its processes only
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "same batches\n"


def two_sided(class_on_the_left, class_on_the_right, shape=(SIZE, SIZE)):
    label = np.zeros(shape, np.uint8)
    label[4:8, 2:5] = class_on_the_left
    label[4:8, -5:-2] = class_on_the_right
    return label


@pytest.mark.parametrize(
    "dataset, left, right, nine_left, nine_right",
    [
        ("helen", "left_brow", "right_brow", 1, 2),
        ("helen", "left_eye", "right_eye", 3, 4),
        ("synthetic_faces", "left_brow", "right_brow", 1, 2),
        ("synthetic_faces", "left_eye", "right_eye", 3, 4),
        # CelebAMask-HQ's left is the subject's: it lies on the viewer's right.
        ("celebamask_hq", "r_brow", "l_brow", 1, 2),
        ("celebamask_hq", "r_eye", "l_eye", 3, 4),
    ],
)
def test_classes_1_and_3_are_on_the_viewers_left(dataset, left, right, nine_left, nine_right):
    names = list(DATA_SETS[dataset].classes)
    label = two_sided(names.index(left), names.index(right))
    source = Single(np.zeros((SIZE, SIZE, 3), np.uint8), label)
    (batch,) = take(loader_of(source, dataset, batch_size=1), 1)
    np.testing.assert_array_equal(batch["labels"][0], two_sided(nine_left, nine_right))


@pytest.mark.parametrize("shape", [(9, 13), (16, 5), (7, 16), (16, 16)])
def test_helen_is_padded_and_centred(shape):
    height, width = shape
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (*shape, 3), dtype=np.uint8)
    label = rng.integers(2, 10, shape, dtype=np.uint8)  # The eight parts: nine-class id + 1.
    (batch,) = take(loader_of(Single(image, label), "helen", batch_size=1), 1)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    margins = ((top, SIZE - height - top), (left, SIZE - width - left))
    np.testing.assert_array_equal(batch["frame"][0], np.pad(image, (*margins, (0, 0))))
    np.testing.assert_array_equal(batch["labels"][0], np.pad(label - 1, margins))
    window = np.array([left, top, left + width - 1, top + height - 1])
    wanted = geometry.theta_from_windows(window, (SIZE, SIZE))
    np.testing.assert_allclose(batch["region"][0], wanted, atol=1e-7)
    if shape == (SIZE, SIZE):
        np.testing.assert_array_equal(batch["region"][0], np.eye(2, 3))


def test_the_image_of_celebamask_hq_is_averaged_and_its_smaller_label_unchanged():
    # The image has twice the side of the label and of the frame, like CelebAMask-HQ's.
    fine = np.random.default_rng(0).integers(0, 256, (2 * SIZE, 2 * SIZE, 3), dtype=np.uint8)
    label = np.random.default_rng(1).integers(0, 19, (SIZE, SIZE), dtype=np.uint8)
    (batch,) = take(loader_of(Single(fine, label), "celebamask_hq", batch_size=1), 1)
    mean = fine.reshape(SIZE, 2, SIZE, 2, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(batch["frame"][0], np.floor(mean + 0.5))
    to_nine = np.concatenate(class_sets(NINE, DATA_SETS["celebamask_hq"]))
    np.testing.assert_array_equal(batch["labels"][0], to_nine[label])
    np.testing.assert_array_equal(batch["region"][0], np.eye(2, 3))


def test_downsampled_labels_are_aligned_with_the_image():
    big, column = 5 * SIZE, 35  # A straight edge, on a boundary of the averaged blocks.
    image = np.zeros((big, big, 3), np.uint8)
    image[:, column:] = 255
    label = (image[..., 0] > 0).astype(np.uint8) * 6
    (batch,) = take(loader_of(Single(image, label), batch_size=1), 1)
    np.testing.assert_array_equal(batch["labels"][0] == 5, batch["frame"][0, ..., 0] > 127)


def image_of(height, width, channels=3):
    return np.zeros((height, width, channels), np.uint8)


def ids(height, width, value=0):
    return np.full((height, width), value, np.uint8)


@pytest.mark.parametrize(
    "dataset, image, label, message",
    [
        (
            "helen",
            image_of(17, 9),
            ids(17, 9),
            r"image has 17 x 9 pixels, but the frame only 16 x 16",
        ),
        ("helen", image_of(9, 9), ids(9, 8), r"differ: 9 x 9 and 9 x 8"),
        ("helen", image_of(9, 9), ids(9, 9, 11), r"has class 11, but must lie in 0\.\.10"),
        ("helen", image_of(9, 9, 1), ids(9, 9), r"image has shape \(9, 9, 1\)"),
        ("celebamask_hq", image_of(32, 31), ids(16, 16), r"image has 32 x 31 pixels.*square"),
        ("celebamask_hq", image_of(32, 32), ids(8, 8), r"label has 8 x 8 pixels.*at least 16"),
        ("synthetic_faces", image_of(8, 8), ids(8, 8), r"image has 8 x 8 pixels.*at least 16"),
    ],
)
def test_the_message_names_a_record_that_does_not_fit(dataset, image, label, message):
    loader = loader_of(Single(image, label), dataset, batch_size=1)
    with pytest.raises(ValueError, match=r"record 0, 'the_face': .*" + message):
        next(iter(loader))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_size": 5, "process_count": 2}, "batch_size is 5.*multiple of process_count, 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"process_index": 2, "process_count": 2}, r"process_index is 2.*0\.\.1"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        loader_of(Uniform(5), **change)


def test_unknown_data_set_and_empty_source():
    with pytest.raises(ValueError, match="'lapo'.*helen, lapa, synthetic_faces"):
        loader_of(Uniform(5), "lapo")
    with pytest.raises(ValueError, match="no record"):
        loader_of(Uniform(0))
