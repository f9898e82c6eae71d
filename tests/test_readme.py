"""The README's Python examples run as printed."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_examples_are_found():
    assert len(EXAMPLES) >= 3
    assert "from psanet_tf import PSALayer" in EXAMPLES[0]
    assert "import psanet_tf\n" in EXAMPLES[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    if number == 1 and not (folder / "segmenter.keras").exists():
        exec(EXAMPLES[0], {})
    exec(EXAMPLES[number], names)
    if number == 0:
        assert (folder / "segmenter.keras").is_file()
    if number in (0, 1):
        assert names["model"].output_shape == (None, 17, 17, 21)
    else:
        assert names["outputs"]["logits"].shape == (1, 97, 97, 21)
