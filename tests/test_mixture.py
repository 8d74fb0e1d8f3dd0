"""Batches of several data sets, and of unlabelled images."""

import numpy as np
import pytest
from test_data import SIZE, Uniform, indices, take

from jax_stn_icnn.anatomy import DATA_SETS, NINE, DataSet
from jax_stn_icnn.data.examples import Examples, UnlabelledExamples
from jax_stn_icnn.data.loader import Mixture, make_batches
from jax_stn_icnn.label_sets import make_label_sets

FACES = DATA_SETS["synthetic_faces"]
# Ids as in `Uniform`, whose labels are 0 .. 10.
SIDES = DataSet({str(i): ("brow_1+skin", "ignore")[i % 2] for i in range(11)}, "pad", ignore=True)
LABELS = make_label_sets(NINE, [FACES, SIDES])


def examples(count, data_set=FACES):
    return Examples(Uniform(count), data_set, NINE, LABELS, SIZE)


def make(main=10, batch_size=4, train=True, **options):
    defaults = {"batch_size": batch_size, "seed": 0, "train": train}
    return make_batches(examples(main), **defaults | options)


def mixture(batches=((0, 1000),), weights=(0.5, 0.25)):
    return Mixture([examples(6, SIDES), examples(4)], weights, batches)


class TestMixture:
    def of_sides(self, batches):
        return np.array([~batch["has_parts"] for batch in batches])

    def test_proportions_are_the_weights(self):
        batches = take(make(mixture=mixture()), 70)
        assert abs(self.of_sides(batches).mean() - 0.5 / 1.75) < 0.01

    def test_each_data_set_is_shuffled_and_repeated_by_itself(self):
        batches = take(make(mixture=mixture()), 42)
        index = np.concatenate([batch["index"] for batch in batches])
        seen = index[self.of_sides(batches).ravel()]
        assert len(seen) == 48
        for epoch in seen.reshape(8, 6):
            assert sorted(epoch) == list(range(6))
        assert np.any(seen[:6] != seen[6:12])

    def test_labels_are_those_of_their_data_set(self):
        for batch in take(make(mixture=mixture()), 10):
            value = batch["labels"][:, SIZE // 2, SIZE // 2]
            union = [LABELS.sets[label] for label in value[~batch["has_parts"]]]
            assert set(union) <= {(0, 1), tuple(range(9))}
            assert np.all(value[batch["has_parts"]] < 9)

    def test_padding_outside_a_photo_is_any_class(self):
        source = Uniform(1, (SIZE // 2, SIZE))
        example = Examples(source, SIDES, NINE, LABELS, SIZE)[0]
        assert np.all(example["labels"][[0, -1]] == LABELS.ignored)
        assert LABELS.sets[example["labels"][SIZE // 2, 0]] == (0, 1)

    def test_other_batches_contain_the_main_data_set_alone(self):
        alone, mixed = take(make(), 6), take(make(mixture=mixture(batches=((2, 4),))), 6)
        everywhere = take(make(mixture=mixture()), 6)
        for i, (one, other, third) in enumerate(zip(alone, mixed, everywhere, strict=True)):
            np.testing.assert_array_equal(other["frame"], (third if i in (2, 3) else one)["frame"])

    @pytest.mark.parametrize("process_count", [2, 4])
    def test_processes_share_it(self, process_count):
        expected = take(make(mixture=mixture()), 8)
        for i in range(process_count):
            share = make(mixture=mixture(), process_index=i, process_count=process_count)
            for batch, full in zip(take(share, 8), expected, strict=True):
                np.testing.assert_array_equal(batch["labels"], full["labels"][i::process_count])

    def test_an_iterator_resumes_exactly(self):
        iterator = iter(make(mixture=mixture()))
        for _ in range(5):
            next(iterator)
        state = iterator.get_state()
        again = iter(make(mixture=mixture()))
        again.set_state(state)
        assert state == {"next_index": 5}
        assert indices([next(iterator) for _ in range(9)]) == indices(
            [next(again) for _ in range(9)]
        )


class Third(Uniform):
    """Three images of the frame's size, with colours after those of four others."""

    def __init__(self):
        super().__init__(3)

    def __getitem__(self, index):
        record = super().__getitem__(index)
        return record | {"image": record["image"] + np.uint8(4)}


TWO = ((Uniform(4, (2 * SIZE, 2 * SIZE)), "resize"), (Third(), "pad"))


class TestUnlabelled:
    def loader(self, sources=TWO, **options):
        return make(unlabelled=UnlabelledExamples(sources, SIZE), **options)

    def colours(self, count=5, **options):
        batches = take(self.loader(**options), count)
        for batch in batches:
            assert batch["unlabelled"].shape == batch["frame"].shape
            np.testing.assert_array_equal(batch["unlabelled_region"], batch["region"])
        return np.array([batch["unlabelled"][:, 0, 0, 0] for batch in batches])

    def test_they_have_their_own_order(self):
        seen = self.colours(7).ravel()
        for epoch in seen.reshape(4, 7):
            assert sorted(epoch) == list(range(1, 8))
        assert np.any(seen[:7] != seen[7:14])
        for one, other in zip(take(make(), 2), take(self.loader(), 2), strict=True):
            np.testing.assert_array_equal(one["frame"], other["frame"])

    def test_processes_share_them(self):
        expected = self.colours()
        for i in range(2):
            np.testing.assert_array_equal(
                self.colours(process_index=i, process_count=2), expected[:, i::2]
            )

    def test_an_iterator_resumes_exactly(self):
        iterator = iter(self.loader())
        next(iterator)
        state, expected = iterator.get_state(), next(iterator)
        again = iter(self.loader())
        again.set_state(state)
        np.testing.assert_array_equal(next(again)["unlabelled"], expected["unlabelled"])

    def test_earlier_batches_contain_zeros(self):
        late, full = self.colours(unlabelled_from=2), self.colours()
        assert np.all(late[:2] == 0)
        np.testing.assert_array_equal(late[2:], full[2:])
        np.testing.assert_array_equal(
            self.colours(unlabelled_from=2, process_index=1, process_count=2), late[:, 1::2]
        )

    def test_the_message_names_one_that_does_not_fit(self):
        with pytest.raises(ValueError, match="unlabelled record 0, 'face_0': the image has 8 x 8"):
            take(self.loader([(Uniform(1, (8, 8)), "resize")]), 1)
