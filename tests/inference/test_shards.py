"""Shares of the work of machines that know nothing of each other, and the folder that they write into."""

import errno
import io
import itertools
import json
from pathlib import Path

import pytest

from psanet_tf.inference import shared_results
from psanet_tf.inference.shards import Shard
from psanet_tf.inference.shared_results import share_results

NAMES = [f"image_{index:04d}" for index in range(1000)] + ["Straße", "a/b", ""]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_name_falls_to_exactly_one_machine(count):
    shares = [Shard(index, count).take(NAMES, key=str) for index in range(1, count + 1)]
    assert sorted(itertools.chain(*shares)) == sorted(NAMES)
    for share in shares:
        assert abs(len(share) - len(NAMES) / count) < 60
        assert share == [name for name in NAMES if name in set(share)]


def test_a_share_does_not_depend_on_the_other_names():
    some = Shard.parse("2/3").take(NAMES[::2], key=str)
    assert some == [name for name in Shard(2, 3).take(NAMES, key=str) if name in set(NAMES[::2])]
    # Nor on the machine or the day: other versions must agree.
    assert Shard(1, 2).take("abgh", key=str) == ["g", "h"]


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "one/two"])
def test_what_is_no_shard(text):
    with pytest.raises(ValueError, match="a shard must be I/N"):
        Shard.parse(text)


def test_a_folder_takes_results_of_one_kind(tmp_path):
    out = tmp_path / "out"
    share_results(out, {"weights": "abc", "whole": False})
    share_results(out, {"whole": False, "weights": "abc"})
    with pytest.raises(ValueError, match=r"holds results made otherwise \(weights: abc, now def\)"):
        share_results(out, {"weights": "def", "whole": False})
    assert [file.name for file in out.iterdir()] == ["settings.json"]
    (tmp_path / "other" / "labels").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds results that do not say what made them"):
        share_results(tmp_path / "other", {"weights": "abc"})


def test_what_differs_is_named_and_not_all_that_does_not(tmp_path):
    classes, colors = [f"class {index}" for index in range(150)], [[index, 0, 0] for index in range(150)]
    share_results(tmp_path, {"classes": classes, "colors": colors})
    with pytest.raises(
        ValueError, match=r"otherwise \(classes\[149\]: class 149, now tree; colors\[1\]: \[1, 0, 0\], now"
    ):
        share_results(tmp_path, {"classes": [*classes[:149], "tree"], "colors": [colors[0], [9, 9, 9], *colors[2:]]})
    with pytest.raises(ValueError, match=r"\(classes: \['class 0', .{40,60}\.\.\., now \['class 0'\]\)"):
        share_results(tmp_path, {"classes": classes[:1], "colors": colors})


@pytest.fixture
def no_links(monkeypatch):
    """As on exFAT: a file has one name."""

    def link(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted", source, None, target)

    monkeypatch.setattr("os.link", link)


def test_a_file_system_without_links_is_shared_too(tmp_path, no_links):
    out = tmp_path / "out"
    for _ in range(2):
        share_results(out, {"weights": "abc"})
    assert [file.name for file in out.iterdir()] == ["settings.json"]
    assert json.loads((out / "settings.json").read_text()) == {"weights": "abc"}
    with pytest.raises(ValueError, match=r"holds results made otherwise \(weights: abc, now def\)"):
        share_results(out, {"weights": "def"})


def test_what_another_machine_is_writing_is_waited_for(tmp_path, monkeypatch, no_links):
    file = tmp_path / "settings.json"
    file.write_text('{"weights": "a')
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            file.write_text('{"weights": "abc"}')

    monkeypatch.setattr(shared_results.time, "sleep", sleep)
    share_results(tmp_path, {"weights": "abc"})
    assert len(pauses) == 3
    file.write_text("")
    with pytest.raises(ValueError, match=r"settings.json is damaged: remove it if no machine is working here"):
        share_results(tmp_path, {"weights": "abc"})
    assert sum(pauses[3:]) == pytest.approx(5)


def test_a_full_disk_leaves_no_half_of_a_note(tmp_path, monkeypatch, no_links):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(path, *arguments, **keywords):
        stream = real(path, *arguments, **keywords)
        return Full() if path.name == "settings.json" else stream

    real = Path.open
    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(OSError, match="No space left"):
        share_results(tmp_path, {"weights": "abc"})
    assert list(tmp_path.iterdir()) == []
