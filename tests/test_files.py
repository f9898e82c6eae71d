"""Files that appear whole or not at all."""

import errno
import hashlib
import os
import subprocess
import sys

import pytest

from psanet_tf import files
from psanet_tf.files import (
    NoSpaceError,
    atomic_file,
    check_space,
    check_writable,
    hash_file,
    readable_size,
    remove_unfinished,
)


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


@pytest.fixture
def calls(monkeypatch):
    """Names of the calls that put things on the disk, in their order."""
    done = []
    for name in ("fsync", "replace", "rename"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, call=original: (done.append(name), call(*args))[1])
    return done


def test_contents_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, calls):
    with atomic_file(tmp_path / "a") as temporary:
        temporary.write_text("a")
    assert calls == ["fsync", "replace", "fsync"]


def test_the_file_before_is_kept(tmp_path):
    path, kept = tmp_path / "state", tmp_path / "state.previous"
    for text in "abc":
        with atomic_file(path, keep_as=kept) as temporary:
            temporary.write_text(text)
    assert (path.read_text(), kept.read_text()) == ("c", "b")
    with pytest.raises(RuntimeError), atomic_file(path, keep_as=kept):
        raise RuntimeError
    assert (path.read_text(), kept.read_text()) == ("c", "b")


KILLED = """
import os, runpy, sys
files = runpy.run_path(sys.argv[1])
moment = int(sys.argv[3])
done = 0

def counted(original):
    def call(*args):
        global done
        if done == moment:
            os._exit(9)
        done += 1
        return original(*args)
    return call

for name in ("fsync", "replace"):
    setattr(os, name, counted(getattr(os, name)))
with files["atomic_file"](sys.argv[2] + "/state", keep_as=sys.argv[2] + "/state.previous") as temporary:
    temporary.write_text("new")
"""


@pytest.mark.parametrize(
    ("moment", "there"),
    [
        (0, {"state": "old", "state.previous": "older"}),
        (1, {"state": "old", "state.previous": "older"}),
        (2, {"state.previous": "old"}),
        (3, {"state": "new", "state.previous": "old"}),
        (4, {"state": "new", "state.previous": "old"}),
    ],
)
def test_killed_at_any_moment_there_is_a_whole_file(tmp_path, moment, there):
    """Before the contents are on the disk, before either renaming, before the names are, and afterwards."""
    (tmp_path / "state").write_text("old")
    (tmp_path / "state.previous").write_text("older")
    process = subprocess.run([sys.executable, "-c", KILLED, files.__file__, tmp_path, str(moment)])
    assert process.returncode == (9 if moment < 4 else 0)
    remove_unfinished(tmp_path / "state")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == there


def test_only_what_is_unfinished_is_removed(tmp_path):
    keep = [".lock", ".state.npz", ".state.a.npz", ".other.abcdefgh.npz", "state.npz", ".state.abcdefgh.csv"]
    for name in [*keep, ".state.abcdefgh.npz", ".epoch_00001.abcdefgh.keras"]:
        (tmp_path / name).write_text("")
    remove_unfinished(tmp_path / "state.npz")
    remove_unfinished(tmp_path / "epoch_*.keras")
    remove_unfinished(tmp_path / "nowhere" / "state.npz")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(keep)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
    ],
)
def test_a_full_disk_is_explained_and_changes_nothing(tmp_path, monkeypatch, error):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 120_000_000}))
    path = tmp_path / "state.npz"
    path.write_text("old")
    message = rf"^no space left to write {path}: needs about 300.0 MB, 120.0 MB are free; what was .* Make room"
    with (
        pytest.raises(NoSpaceError, match=message),
        atomic_file(path, needed_bytes=300_000_000, keep_as=tmp_path / "previous") as temporary,
    ):
        temporary.write_text("half")
        raise error
    with pytest.raises(NoSpaceError, match=r"120.0 MB are free \(a quota, .*is used up\)"), atomic_file(path):
        raise error
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]
    assert path.read_text() == "old"
    check_space(path, 120_000_000)
    with pytest.raises(NoSpaceError, match="needs about 120.0 MB"):
        check_space(path, 120_000_001)


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(OSError, match="^.Errno 5. broken"), atomic_file(tmp_path / "a"):
        raise OSError(errno.EIO, "broken")


def test_sizes_in_words():
    assert [readable_size(count) for count in (0, 999, 1000, 12_345_678, 5e13)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "12.3 MB",
        "50.0 TB",
    ]


def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path):
    check_writable(tmp_path / "new" / "deeper" / "page.html")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(IsADirectoryError, match="is a folder: name a file in it"):
        check_writable(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match=r"page\.html cannot be written: .*file is no folder"):
        check_writable(tmp_path / "file" / "page.html")


@pytest.mark.parametrize("size", [0, 1, files._BLOCK, files._BLOCK + 1])
def test_a_file_is_hashed_whole(tmp_path, size):
    contents = os.urandom(size)
    (tmp_path / "file").write_bytes(contents)
    digest = hashlib.sha256(b"before")
    assert hash_file(tmp_path / "file", digest) is digest
    assert digest.digest() == hashlib.sha256(b"before" + contents).digest()
