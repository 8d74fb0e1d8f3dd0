"""Oversampling of records with rare classes, and pasting of their regions."""

import importlib
import pickle

import numpy as np
import pytest
from test_data import SIZE, assert_equal, indices, take

from jax_stn_icnn.anatomy import DATA_SETS, NINETEEN
from jax_stn_icnn.data.copy_paste import CopyPaste
from jax_stn_icnn.data.examples import Examples
from jax_stn_icnn.data.loader import make_batches
from jax_stn_icnn.data.rare import count_labels, find_rare_classes
from jax_stn_icnn.label_sets import make_label_sets
from jax_stn_icnn.train import batches as train_batches

FACES = DATA_SETS["celebamask_hq"]
NAMES = list(FACES.classes.values())
LABELS = make_label_sets(NINETEEN, [FACES])
GLASSES, HAT, SKIN, EYE = NINETEEN.ids(("glasses", "hat", "skin", "eye_1"))
WITH_GLASSES, WITH_HAT = {3, 13, 23, 33}, {7, 13}
SKIN_LEVEL = 100


class Accessories:
    """Forty faces of skin, some with glasses or a hat, whose gray levels are 150 + the index."""

    def __init__(self, count=40, first_skin=SKIN_LEVEL, skin=SKIN_LEVEL, hat_rows=2):
        self._count, self._skins, self._hat, self.reads = count, (first_skin, skin), hat_rows, 0

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        self.reads += 1
        image = np.full((SIZE, SIZE, 3), self._skins[index > 0], np.uint8)
        label = np.full((SIZE, SIZE), NAMES.index("skin"), np.uint8)
        if index in WITH_HAT:
            hat = slice(self._hat), slice(2, 14)
            image[hat], label[hat] = 150 + index, NAMES.index("hat")
        if index in WITH_GLASSES:
            image[6:9, 3:13], label[6:9, 3:13] = 150 + index, NAMES.index("glasses")
            label[7, 5] = NAMES.index("eye_1")  # behind the lens
        return {"image": image, "label": label[..., None], "name": b"face_%d" % index}


def find(source=None, classes=("glasses", "hat"), data_set=FACES, store=None, **options):
    options = {"share": 0.0, "paste": 0.0} | options
    source = source or Accessories()
    return find_rare_classes(
        source, data_set, NINETEEN, classes, store=store, name="faces/train", **options
    )


def examples(**options):
    return Examples(Accessories(**options), FACES, NINETEEN, LABELS, SIZE)


def make(rare=None, **options):
    defaults = {"batch_size": 8, "seed": 0, "train": True}
    return make_batches(examples(), rare=rare, **defaults | options)


class TestRecords:
    def test_those_of_each_class_are_found(self):
        assert [set(records) for records in find().records] == [WITH_GLASSES, WITH_HAT]

    def test_a_few_pixels_do_not_count(self):
        class Large:
            def __len__(self):
                return 2

            def __getitem__(self, index):
                label = np.zeros((200, 200, 1), np.uint8)
                label[0, : 3 + index] = NAMES.index("hat")  # 1e-4 of the pixels are 4
                return {"label": label, "name": b""}

        assert find(Large(), ("hat",)).records == ((1,),)

    def test_counts_are_those_of_the_labels(self):
        counts = count_labels(Accessories(), len(NAMES), None, "faces")
        assert counts.shape == (40, len(NAMES) + 1) and np.all(counts.sum(axis=1) == SIZE**2)
        assert counts[13, NAMES.index("hat")] == 24 and counts[13, NAMES.index("glasses")] == 29
        assert count_labels(Accessories(), 1, None, "faces")[0].tolist() == [0, SIZE**2]

    def test_counts_are_stored_and_read_again(self, tmp_path):
        class Many(Accessories):
            def __init__(self):
                super().__init__(200)

        first, again = Many(), Many()
        found = find(first, store=tmp_path)
        assert find(again, store=tmp_path) == found
        assert first.reads == 264 and again.reads == 64
        (file,) = tmp_path.iterdir()
        assert file.name.startswith("labels_") and file.suffix == ".json"
        find(Accessories(), store=tmp_path)
        assert len(list(tmp_path.iterdir())) == 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"classes": ("glasses", "wig")}, "there is no class 'wig': the classes are"),
            ({"classes": ("necklace",)}, "'necklace', but in no record of faces/train is 0.01%"),
            (
                {"data_set": FACES._replace(framing="pad"), "paste": 0.5},
                "dataset.paste is 0.5, but the images of faces/train have framing 'pad'",
            ),
        ],
    )
    def test_errors(self, change, message):
        with pytest.raises(ValueError, match=message):
            find(**change)

    def test_without_pasting_any_framing_will_do(self):
        assert find(data_set=FACES._replace(framing="pad"), share=0.5) == find(share=0.5)


class TestShare:
    @pytest.mark.slow
    @pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
    def test_each_class_has_an_equal_part_of_it(self, share):
        index = np.concatenate(indices(take(make(find(share=share)), 150)))
        of_glasses, of_hat = np.isin(index, [3, 23, 33]), index == 7
        # Of the records with glasses and of those with a hat, record 13 is one of four and of two.
        expected = [share / 2 * 3 / 4 + (1 - share) * 3 / 40, share / 2 / 2 + (1 - share) / 40]
        np.testing.assert_allclose([of_glasses.mean(), of_hat.mean()], expected, atol=0.01)

    def test_the_rest_has_the_order_without_it(self):
        alone, mixed = (np.concatenate(indices(take(make(r), 20))) for r in (None, find(share=0.5)))
        common = [i for i in mixed if i not in WITH_GLASSES | WITH_HAT]
        expected = [i for i in alone if i not in WITH_GLASSES | WITH_HAT]
        assert common == expected[: len(common)]

    def test_frames_are_those_of_the_index(self):
        for batch in take(make(find(share=0.5)), 5):
            for frame, index in zip(batch["frame"], batch["index"], strict=True):
                np.testing.assert_array_equal(frame, examples()[int(index)]["frame"])


BOTH = {"share": 0.5, "paste": 0.6}


class TestStream:
    @pytest.mark.parametrize("process_count", [2, 4])
    def test_processes_share_each_batch(self, process_count):
        expected = take(make(find(**BOTH)), 8)
        for i in range(process_count):
            share = make(find(**BOTH), process_index=i, process_count=process_count)
            for batch, full in zip(take(share, 8), expected, strict=True):
                own = {field: values[i::process_count] for field, values in full.items()}
                assert_equal([batch], [own])

    def test_an_iterator_resumes_exactly(self):
        wanted, iterator = take(make(find(**BOTH)), 9), iter(make(find(**BOTH)))
        for _ in range(4):
            next(iterator)
        state = iterator.get_state()
        again = iter(make(find(**BOTH)))
        again.set_state(state)
        assert state == {"next_index": 4}
        assert_equal([next(again) for _ in range(5)], wanted[4:])

    def test_the_seed_determines_what_is_pasted(self):
        first, again, other = (take(make(find(paste=1.0), seed=seed), 3) for seed in (5, 5, 6))
        assert_equal(first, again)
        assert any(np.any(a["labels"] != b["labels"]) for a, b in zip(first, other, strict=True))

    def test_off_it_changes_nothing(self):
        assert_equal(take(make(find()), 5), take(make(), 5))


class TestPaste:
    def paste(self, examples, place=None, **options):
        """Returns an example before pasting, and after it at each of 60 positions."""
        before = examples[0 if place is None else place]
        paste = CopyPaste(examples, find(**{"paste": 1.0} | options), 0)
        return before, [paste(position, before) for position in range(60)]

    def test_pixels_and_labels_are_those_of_one_record(self):
        before, pasted = self.paste(examples())
        donors = set()
        for after in pasted:
            changed = after["labels"] != before["labels"]
            (level,) = np.unique(after["frame"][changed])
            index = int(level) - 150
            donor, glasses = examples()[index], np.any(after["labels"] == GLASSES)
            assert index in (WITH_GLASSES if glasses else WITH_HAT)
            ids = (GLASSES, EYE) if glasses else (HAT,)
            labels = np.where(np.isin(donor["labels"], ids), donor["labels"], SKIN)
            shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
            inner = (slice(1, -1),) * 2
            assert any(
                np.array_equal(np.roll(labels, shift, (0, 1))[inner], after["labels"][inner])
                for shift in shifts
            )
            donors.add((index, bool(glasses)))
        assert donors == {(i, True) for i in WITH_GLASSES} | {(i, False) for i in WITH_HAT}

    def test_it_is_blended_over_the_pixels_next_to_it(self):
        # The others' skin is brightened by the largest factor, from 30 to 45.
        before, pasted = self.paste(examples(skin=30), classes=("glasses",))
        for after in pasted:
            mask = after["labels"] != before["labels"]
            near = np.zeros_like(mask)
            for shift in np.ndindex(3, 3):
                near |= np.roll(mask, np.array(shift) - 1, (0, 1))
            assert np.all(after["frame"][near & ~mask] == np.round((SKIN_LEVEL + 45) / 2))
            assert np.all(after["frame"][~near] == SKIN_LEVEL)

    def test_a_thick_region_loses_its_outermost_pixels(self):
        _, pasted = self.paste(examples(hat_rows=8), classes=("hat",))
        for after in pasted:
            rows, columns = np.nonzero(after["labels"] == HAT)
            assert rows.min() == 0 and rows.max() in (5, 6, 7)
            assert columns.max() - columns.min() == 9 and len(rows) == 10 * (rows.max() + 1)

    def test_the_probability_is_that_of_the_config(self):
        before, pasted = self.paste(examples(), paste=0.4)
        changed = [np.any(after["labels"] != before["labels"]) for after in pasted]
        assert 0.25 < np.mean(changed) < 0.55

    def test_other_fields_and_the_given_example_do_not_change(self):
        before, pasted = self.paste(examples())
        np.testing.assert_array_equal(before["frame"], examples()[0]["frame"])
        for field in ("region", "index", "mask", "has_parts"):
            np.testing.assert_array_equal(pasted[0][field], before[field])

    def test_a_record_receives_no_class_that_it_has(self):
        before, pasted = self.paste(examples(), place=7)
        assert all(np.sum(after["labels"] == HAT) == 24 for after in pasted)
        assert all(np.any(after["labels"] == GLASSES) for after in pasted)
        before, pasted = self.paste(examples(), place=13)
        assert all(after is before for after in pasted)

    def test_a_union_may_be_the_class(self):
        union = FACES._replace(classes=dict(FACES.classes) | {"skin": "skin+glasses"})
        source, labels = Accessories(), make_label_sets(NINETEEN, [union])
        partial = Examples(source, union, NINETEEN, labels, SIZE)
        _, pasted = self.paste(partial)
        assert not any(np.any(after["labels"] == GLASSES) for after in pasted)
        assert all(np.any(after["labels"] == HAT) for after in pasted)

    def test_nothing_is_pasted_onto_other_surroundings(self):
        faces = examples()
        before = faces[0] | {"labels": np.full((SIZE, SIZE), 18, np.uint8)}  # all cloth
        paste = CopyPaste(faces, find(paste=1.0), 0)
        assert all(paste(position, before) is before for position in range(20))

    def test_brightness_is_that_of_the_example(self):
        dark = examples(first_skin=80)
        for after in self.paste(dark)[1]:
            (level,) = np.unique(after["frame"][after["labels"] != SKIN])
            donors = [round((150 + i) * 81 / 101) for i in WITH_GLASSES | WITH_HAT]
            assert min(abs(int(level) - donor) for donor in donors) <= 1

    def test_a_pickled_one_pastes_the_same(self):
        paste = CopyPaste(examples(), find(paste=1.0), 3)
        copy = pickle.loads(pickle.dumps(paste))
        np.testing.assert_array_equal(
            paste(5, examples()[0])["frame"], copy(5, examples()[0])["frame"]
        )


class TestRun:
    @pytest.fixture
    def data(self, monkeypatch, tmp_path):
        monkeypatch.setattr(train_batches, "open_frames", lambda *_: Accessories())
        monkeypatch.setattr(train_batches, "data_set_folder", lambda *_: tmp_path)

        def data(**fields):
            config = importlib.import_module("configs.common").get_config()
            config.model.anatomy, config.batch_size, config.eval_batch_size = "nineteen", 8, 8
            config.dataset.update({"name": "celebamask_hq", "frame_size": SIZE} | fields)
            return train_batches.Data(config, NINETEEN)

        return data

    def test_a_run_trains_on_them_and_evaluates_without(self, data):
        with_rare = data(rare_classes=("glasses", "hat"), rare_share=0.5, paste=0.6)
        expected = take(make(find(**BOTH)), 3)
        assert_equal(take(with_rare.training_batches([], 0), 3), expected)
        off = data()
        assert_equal(take(off.training_batches([], 0), 3), take(make(), 3))
        for one, other in zip(
            with_rare.evaluation_batches("test"), off.evaluation_batches("test"), strict=True
        ):
            assert_equal([one], [other])

    def test_a_class_that_no_record_has_is_an_error(self, data):
        with pytest.raises(ValueError, match="'earring', but in no record of celebamask_hq/train"):
            data(rare_classes=("earring",), rare_share=0.5).training_batches([], 0)
