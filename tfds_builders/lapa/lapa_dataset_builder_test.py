"""TFDS's test case for the LaPa builder."""

import pytest

pytest.importorskip("tensorflow", reason="TFDS's test case uses TensorFlow")
pytest.importorskip("dill", reason="TFDS's test case imports it")

import tensorflow_datasets as tfds  # noqa: E402

from tfds_builders.lapa import lapa_dataset_builder  # noqa: E402


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    """Builds `dummy_data` as tfrecord."""

    DATASET_CLASS = lapa_dataset_builder.Builder
    SPLITS = {"train": 4, "validation": 1, "test": 2}


if __name__ == "__main__":
    tfds.testing.test_main()
