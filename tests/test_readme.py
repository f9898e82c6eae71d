"""The README's Python examples run as printed."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_examples_are_found():
    assert len(EXAMPLES) >= 2
    assert "from psanet_tf import PSALayer" in EXAMPLES[0]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(EXAMPLES[number], names)
    if number == 0:
        assert (tmp_path / "segmenter.keras").is_file()
        assert names["model"].output_shape == (None, 17, 17, 21)
    else:
        assert names["outputs"]["logits"].shape == (1, 97, 97, 21)
