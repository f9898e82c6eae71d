"""Shares of the work of machines that know nothing of each other, and the folder that they write into."""

import itertools

import pytest

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
