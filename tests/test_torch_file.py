"""Reading PyTorch's older format without PyTorch and without executing code of the file.

The files are written by hand here; `test_encoder.py` reads one that PyTorch wrote.
"""

import pickle

import numpy as np
import pytest

from jax_stn_icnn.io.torch_file import read_state_dict

MAGIC = 0x1950A86A20F9469CFC6C
MACHINE = {"little_endian": True}
NUMBERS = np.arange(24, dtype=np.float32)


class Call:
    """Pickled, it calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def pickled(*objects):
    return b"".join(pickle.dumps(each, protocol=2) for each in objects)


def file_of(**tensors):
    """Returns a file with one storage, and tensors of it: offset, shape, strides."""

    def numbers(values):
        return "(" + "".join(f"I{value}\n" for value in values) + "t"

    storage = f"(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI{NUMBERS.size}\nNtQ"
    state = "".join(
        f"V{name}\nctorch._utils\n_rebuild_tensor_v2\n"
        f"({storage}I{offset}\n{numbers(shape)}{numbers(strides)}I00\nNtRs"
        for name, (offset, shape, strides) in tensors.items()
    )
    header = pickled(MAGIC, 1001, MACHINE) + b"(d" + state.encode() + b"." + pickled(["0"])
    return header + NUMBERS.size.to_bytes(8, "little") + NUMBERS.tobytes()


def test_tensors_with_strides_and_a_common_storage_are_read():
    data = file_of(transposed=(0, (4, 2, 3), (1, 12, 4)), part=(5, (4,), (1,)), number=(7, (), ()))
    found = read_state_dict(data, "file")
    expected = NUMBERS.reshape(2, 3, 4).transpose(2, 0, 1)
    np.testing.assert_array_equal(found["transposed"], expected)
    np.testing.assert_array_equal(found["part"], NUMBERS[5:9])
    assert found["number"] == 7
    assert all(array.dtype == np.float32 and array.flags.writeable for array in found.values())


@pytest.mark.parametrize("length", [0, 1, 40, -1])
def test_a_truncated_file_is_named(length):
    data = file_of(weight=(0, (24,), (1,)))
    with pytest.raises(ValueError, match="file is not a PyTorch state dict of tensors"):
        read_state_dict(data[:length], "file")


@pytest.mark.parametrize("position", range(5))
def test_no_code_of_a_file_is_executed(position, tmp_path):
    marker = tmp_path / "marker"
    objects = [MAGIC, 1001, MACHINE, {}, []]
    objects[position] = Call(open, str(marker), "w")
    with pytest.raises(ValueError, match="it contains .*open, which no state dict needs"):
        read_state_dict(pickled(*objects), "file")
    assert not marker.exists()


@pytest.mark.parametrize(
    "objects",
    [
        (1, 1001, MACHINE, {}, []),
        (MAGIC, 1001, {"little_endian": False}, {}, []),
        (MAGIC, 1001, MACHINE, [], []),
        (MAGIC, 1001, MACHINE, {"epoch": 3}, []),
        (MAGIC, 1001, MACHINE, {}, ["0"]),
    ],
    ids=["magic", "big-endian", "no dict", "a number", "unknown storage"],
)
def test_other_contents_are_refused(objects):
    with pytest.raises(ValueError, match="file is not a PyTorch state dict of tensors"):
        read_state_dict(pickled(*objects), "file")


@pytest.mark.parametrize(
    "view",
    [
        (1, (24,), (1,)),
        (0, (25,), (1,)),
        (0, (2, 2), (23, 1)),
        (30, (1,), (1,)),
        (5, (3,), (-1,)),
        (-1, (1,), (1,)),
        (0, (3,), (1, 1)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(view):
    with pytest.raises(ValueError, match="file is not a PyTorch state dict of tensors: a tensor"):
        read_state_dict(file_of(weight=view), "file")
