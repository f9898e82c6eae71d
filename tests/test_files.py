"""Files and folders that appear whole or not at all."""

import pytest

from psanet_tf.files import atomic_file, atomic_folder


def test_file_appears_with_its_content(tmp_path):
    path = tmp_path / "new" / "scores.json"
    with atomic_file(path) as temporary:
        assert temporary.suffix == ".json"
        temporary.write_text("{}")
        assert not path.exists()
    assert path.read_text() == "{}"
    assert [entry.name for entry in path.parent.iterdir()] == ["scores.json"]
    assert path.stat().st_mode & 0o444


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.json"]


def test_folder_appears_whole(tmp_path):
    path = tmp_path / "data" / "scenes"
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("a")
        assert not path.exists()
    assert (path / "a").read_text() == "a"
    assert [entry.name for entry in path.parent.iterdir()] == ["scenes"]


def test_failure_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "scenes") as temporary:
        (temporary / "a").write_text("a")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_existing_folder_is_never_replaced(tmp_path):
    (tmp_path / "scenes").mkdir()
    with pytest.raises(FileExistsError, match="scenes exists already"), atomic_folder(tmp_path / "scenes"):
        pass
