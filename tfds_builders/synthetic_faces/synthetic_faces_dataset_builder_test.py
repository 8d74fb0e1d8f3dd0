"""TFDS's test case for the synthetic faces builder."""

import pytest

pytest.importorskip("tensorflow", reason="TFDS's test case uses TensorFlow")
pytest.importorskip("dill", reason="TFDS's test case imports it")

import tensorflow_datasets as tfds  # noqa: E402
from etils import epath  # noqa: E402

from tfds_builders.synthetic_faces import synthetic_faces_dataset_builder  # noqa: E402


class _SmallBuilder(synthetic_faces_dataset_builder.Builder):
    """The builder with few records, because drawing all of them takes more than a minute."""

    name = "synthetic_faces_small"
    SPLIT_SIZES = {"train": 3, "validation": 1, "test": 2}


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    """Builds as tfrecord."""

    DATASET_CLASS = _SmallBuilder
    SPLITS = _SmallBuilder.SPLIT_SIZES
    # Nothing is downloaded, but the test case requires a folder of archives.
    EXAMPLE_DIR = epath.Path(__file__).parent


if __name__ == "__main__":
    tfds.testing.test_main()
