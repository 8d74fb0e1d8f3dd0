"""Opening data sets that TFDS has prepared."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from test_data import SIZE, Uniform, assert_equal, indices

from jax_stn_icnn.anatomy import DATA_SETS, NINE, DataSet
from jax_stn_icnn.data import opening
from jax_stn_icnn.data.loader import loader_over, make_loader
from jax_stn_icnn.data.prepared import open_source


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def build(data_dir, class_names, name="synthetic_faces", count=5):
    """Writes a data set in the format of the real builders."""

    def records():
        for index in range(count):
            image = np.full((SIZE, SIZE, 3), index + 1, np.uint8)
            label = np.full((SIZE, SIZE), index, np.uint8)
            extra = np.zeros((SIZE, SIZE, 11), np.uint8)
            key = f"face_{index}"
            yield key, {"image": png(image), "label": png(label), "name": key, "soft": extra}

    class TinyBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = data_dir

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": tfds.features.LabeledImage(
                    labels=class_names, shape=(None, None, 1), encoding_format="png"
                ),
                "name": tfds.features.Text(),
                "soft": tfds.features.Tensor(
                    shape=(None, None, 11), dtype=np.uint8, encoding="zlib"
                ),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _shard_iterators_per_split(self, dl_manager):
            return {"train": [records]}

    TinyBuilder.name = name
    TinyBuilder(data_dir=data_dir).download_and_prepare(file_format="array_record")


def test_prepared_data_set(tmp_path):
    build(tmp_path, list(DATA_SETS["helen"].classes))
    source = open_source(tmp_path, "synthetic_faces", "train")
    assert len(source) == 5
    assert isinstance(source[0]["soft"]["value"], bytes)  # decoded only on access
    options = {"frame_size": SIZE, "batch_size": 2, "seed": 0, "train": False}
    batches = list(make_loader(tmp_path, "synthetic_faces", "train", NINE, **options))
    assert_equal(batches, list(loader_over(Uniform(5), "synthetic_faces", NINE, **options)))
    part = list(make_loader(str(tmp_path), "synthetic_faces", "train[:2]", NINE, **options))
    assert indices(part) == [[0, 1]]
    with pytest.raises(ValueError, match="validation.*train"):
        open_source(tmp_path, "synthetic_faces", "validation")


def test_data_set_in_a_format_without_an_index(tmp_path):
    build(tmp_path, list(DATA_SETS["helen"].classes))
    info = tmp_path / "synthetic_faces" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="1.0.0 holds tfrecord, .* must hold array_record; run: "):
        open_source(tmp_path, "synthetic_faces", "train")


def test_data_set_with_other_classes(tmp_path):
    build(tmp_path, ["background", "face"])
    with pytest.raises(ValueError, match="has the labels.*'face'.*registered with.*'left_brow'"):
        open_source(tmp_path, "synthetic_faces", "train")


def test_an_evaluation_needs_labels(tmp_path, monkeypatch):
    monkeypatch.setitem(DATA_SETS, "photos", DataSet({}, framing="resize"))
    with pytest.raises(ValueError, match="data set 'photos' has no labels"):
        opening.open_examples(tmp_path, "photos", "train", NINE, SIZE)


def test_missing_data_set(tmp_path):
    (tmp_path / "helen" / "incomplete.x_1.0.0").mkdir(parents=True)
    command = f"python -m tfds_builders.prepare helen --data_dir {tmp_path}"
    with pytest.raises(FileNotFoundError, match=command):
        open_source(tmp_path, "helen", "train")
