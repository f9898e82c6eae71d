"""PyTorch's files read without PyTorch: files that it wrote itself, and files made here opcode by opcode."""

import json
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import procedural_weights
import pytest
from pytorch_writer import Call, Storage, tensor, write

from psanet_tf.weights.pytorch_files import read_pytorch_file

FILES = Path(__file__).parents[1] / "golden" / "pth"


@pytest.fixture(scope="module")
def expected():
    meta = json.loads((FILES / "meta.json").read_text())
    return procedural_weights.state_dict(meta["state_dict_shapes"], meta["weights_seed"])


def state_dict(path):
    checkpoint = read_pytorch_file(path)
    state = checkpoint.get("state_dict", checkpoint)
    return {name.removeprefix("module."): array for name, array in state.items()}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("zip", np.float32),
        ("zip_channels_last", np.float32),
        ("legacy", np.float32),
        ("zip_float16", np.float16),
        ("legacy_bfloat16", ml_dtypes.bfloat16),
    ],
)
def test_reads_what_pytorch_wrote(name, dtype, expected):
    state = state_dict(FILES / f"{name}.pth")
    assert list(state) == list(expected)
    for key, array in state.items():
        desired = expected[key] if key.endswith("num_batches_tracked") else expected[key].astype(dtype)
        assert array.dtype == desired.dtype
        np.testing.assert_array_equal(array, desired)


def test_everything_around_the_weights_is_kept():
    checkpoint = read_pytorch_file(FILES / "zip.pth")
    assert checkpoint["epoch"] == 100
    assert checkpoint["optimizer"]["param_groups"][0]["lr"] == 0.01


def test_arrays_are_views_of_the_file():
    array = state_dict(FILES / "zip_channels_last.pth")["layer0.0.weight"]
    assert not array.flags.owndata and not array.flags.writeable
    assert not array.flags.c_contiguous  # the strides that it was saved with


@pytest.mark.parametrize("name", ["evil", "evil_legacy"])
def test_nothing_in_a_file_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="posix.system"):
        read_pytorch_file(FILES / f"{name}.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_short_is_named():
    with pytest.raises(ValueError, match=r"cut\.pth is not a PyTorch file, is damaged or cut short"):
        read_pytorch_file(FILES / "cut.pth")


@pytest.mark.parametrize("name", ["zip", "legacy"])
def test_a_file_cut_anywhere_is_an_error(name, tmp_path):
    whole = (FILES / f"{name}.pth").read_bytes()
    generator = np.random.default_rng(3)
    for length in [0, 1, 4, 15, 40, *generator.integers(50, len(whole), 25).tolist(), len(whole) - 1]:
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a PyTorch file, is damaged or cut short"):
            read_pytorch_file(tmp_path / "cut.pth")


def test_damage_is_an_error_or_another_number(tmp_path, expected):
    """Bytes changed at random: never another exception than ValueError, never an array outside of the file."""
    whole = bytearray((FILES / "zip.pth").read_bytes())
    generator = np.random.default_rng(4)
    refused = 0
    for _ in range(60):
        damaged = whole.copy()
        for place in generator.integers(0, 20000, 3):
            damaged[place] = generator.integers(256)
        (tmp_path / "damaged.pth").write_bytes(damaged)
        try:
            state = read_pytorch_file(tmp_path / "damaged.pth")
        except ValueError:
            refused += 1
        else:
            assert isinstance(state, dict)
    assert refused > 30


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "does not begin"), (b"hello\n", "does not begin"), (b"\xff\xd8\xff\xe0" + bytes(40), "does not begin")],
)
def test_other_files_are_named(tmp_path, content, message):
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=rf"photo\.jpg is not a PyTorch file.*{message}"):
        read_pytorch_file(tmp_path / "photo.jpg")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no PyTorch file .*nothing.pth"):
        read_pytorch_file(tmp_path / "nothing.pth")


def test_shared_storages_and_any_strides(tmp_path):
    numbers = np.arange(12, dtype=np.float32)
    tree = {
        "rows": tensor("0", 12, (3, 4), (4, 1)),
        "columns": tensor("0", 12, (4, 3), (1, 4)),
        "part": tensor("0", 12, (2, 2), (4, 2), offset=1),
        "same": tensor("0", 12, (3, 2), (0, 1)),
        "scalar": tensor("0", 12, (), (), offset=7),
        "empty": tensor("0", 12, (0, 3), (3, 1), offset=12),
    }
    found = read_pytorch_file(write(tmp_path / "a.pth", tree, {"0": numbers}))
    np.testing.assert_array_equal(found["rows"], numbers.reshape(3, 4))
    np.testing.assert_array_equal(found["columns"], numbers.reshape(3, 4).T)
    np.testing.assert_array_equal(found["part"], [[1, 3], [5, 7]])
    np.testing.assert_array_equal(found["same"], [[0, 1]] * 3)
    assert found["scalar"] == 7 and found["scalar"].shape == ()
    assert found["empty"].shape == (0, 3)
    assert np.shares_memory(found["rows"], found["columns"])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (tensor("0", 12, (3, 5), (4, 1)), "beyond its 12 stored numbers"),
        (tensor("0", 12, (3, 4), (4, 1), offset=1), "beyond its 12 stored numbers"),
        (tensor("0", 12, (2,), (-1,), offset=3), "with strides"),
        (tensor("0", 12, (2,), (1,), offset=-1), "a tensor at -1"),
        (tensor("0", 12, (2, 2), (1,)), "a tensor without storage"),
        (tensor("0", 13, (2,), (1,)), "storage 0 has 48 of 52 bytes"),
        (tensor("1", 12, (2,), (1,)), "storage 1 are missing"),
        ([tensor("0", 12, (2,), (1,)), tensor("0", 6, (2,), (1,), kind="DoubleStorage")], "two types or lengths"),
        (Storage("0", 12), "a storage outside of a tensor"),
    ],
)
def test_impossible_tensors_are_errors(tmp_path, tree, message):
    with pytest.raises(ValueError, match=message):
        read_pytorch_file(write(tmp_path / "a.pth", tree, {"0": np.zeros(12, np.float32)}))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "namedtuple"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("psanet_tf.weights.pytorch_files", "read_pytorch_file"),
    ],
)
def test_names_that_checkpoints_do_not_need_are_refused_by_name(tmp_path, module, name):
    with pytest.raises(ValueError, match=rf"a\.pth is refused: it wants {module}\.{name} to be called"):
        read_pytorch_file(write(tmp_path / "a.pth", {"x": Call(module, name, "1")}, {}))


def test_attributes_of_what_is_known_cannot_be_set(tmp_path):
    """The opcode BUILD puts entries into an object's __dict__: there is none to put them into."""
    rebuild = pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n"
    for target in (rebuild, pickle.GLOBAL + b"torch\nFloatStorage\n", pickle.GLOBAL + b"torch\nSize\n"):
        table = b"\x80\x02" + target + b"}X\x01\x00\x00\x00aK\x01sb."
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr("archive/data.pkl", table)
        with pytest.raises(ValueError, match="table of tensors cannot be read"):
            read_pytorch_file(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"byteorder": b"big"}, "big-endian"),
        ({"constants_pkl": b""}, "a TorchScript program"),
        ({"compression": zipfile.ZIP_DEFLATED}, "storage 0 is compressed"),
    ],
)
def test_other_kinds_of_archive_are_named(tmp_path, extra, message):
    tree = tensor("0", 100, (2,), (1,))
    with pytest.raises(ValueError, match=message):
        read_pytorch_file(write(tmp_path / "a.pth", tree, {"0": np.zeros(100, np.float32)}, **extra))


def test_a_deep_nest_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(ValueError, match="nested too deeply"):
        read_pytorch_file(tmp_path / "a.pth")
