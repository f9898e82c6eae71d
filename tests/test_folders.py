"""Folders that appear whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from psanet_tf import folders
from psanet_tf.files import NoSpaceError
from psanet_tf.folders import atomic_folder, atomic_numbered_folder


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


def test_contents_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "rename"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, call=original: (calls.append(name), call(*args))[1])
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "part").mkdir()
        (temporary / "part" / "b").write_text("b")
    # The file, both folders; then the name, and the folder that it is in.
    assert calls == ["fsync", "fsync", "fsync", "rename", "fsync"]


def test_a_full_disk_is_explained(tmp_path):
    for folder in (atomic_folder(tmp_path / "7"), atomic_numbered_folder(tmp_path, 7)):
        with pytest.raises(NoSpaceError, match=rf"^no space left to write {tmp_path / '7'}: .* Make room"), folder:
            raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def numbered(parent, first=1, text="new"):
    with atomic_numbered_folder(parent, first) as folder:
        assert folder.path is None
        (folder.temporary / "a").write_text(text)
    return folder.path


def test_numbers_are_taken_when_a_folder_is_finished(tmp_path):
    with atomic_numbered_folder(tmp_path, 1) as slow:
        (slow.temporary / "a").write_text("slow")
        # Neither removes what the other one is writing.
        assert numbered(tmp_path) == tmp_path / "1"
        assert numbered(tmp_path) == tmp_path / "2"
    assert slow.path == tmp_path / "3"
    texts = {path.name: (path / "a").read_text() for path in tmp_path.iterdir()}
    assert texts == {"1": "new", "2": "new", "3": "slow"}


def test_empty_folders_block_no_number_and_others_are_passed_over(tmp_path):
    (tmp_path / "2").mkdir()
    assert numbered(tmp_path, 2) == tmp_path / "2"
    (tmp_path / "3").write_text("a file")
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "notes").write_text("")
    assert numbered(tmp_path, 2) == tmp_path / "5"
    assert [(tmp_path / "3").read_text(), os.listdir(tmp_path / "4")] == ["a file", ["notes"]]


# Without the package itself, which would bring TensorFlow along.
KILLED = """
import os, signal, sys, types
package = types.ModuleType("psanet_tf")
package.__path__ = [sys.argv[1]]
sys.modules["psanet_tf"] = package
from psanet_tf.folders import atomic_folder, atomic_numbered_folder
with atomic_numbered_folder(sys.argv[2], 3) as folder, atomic_folder(sys.argv[2] + "/scenes") as scenes:
    for path in (folder.temporary, scenes):
        (path / "large").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(folders.fcntl is None, reason="this system has no locks of folders")
def test_what_killed_processes_left_is_removed_by_the_next_one(tmp_path):
    (tmp_path / ".3.settings").mkdir()  # of somebody else
    command = [sys.executable, "-c", KILLED, Path(folders.__file__).parent, tmp_path]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*.unfinished/large"))) == 2
    assert numbered(tmp_path) == tmp_path / "1"
    assert len(list(tmp_path.glob(".*.unfinished"))) == 1  # that of the other name
    with atomic_folder(tmp_path / "scenes"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".3.settings", "1", "scenes"]


def test_where_nothing_can_be_locked_nothing_is_removed(tmp_path, monkeypatch):
    left = tmp_path / ".1.abcdefgh.unfinished"
    left.mkdir()

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    for patch in ({"name": "fcntl.flock", "value": refuse}, {"name": "fcntl", "value": None}):
        monkeypatch.setattr(f"psanet_tf.folders.{patch['name']}", patch["value"])
        numbered(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [left.name, "1", "2"]
