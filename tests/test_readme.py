"""The README's Python examples run as printed."""

import re
from pathlib import Path

import pytest
from PIL import Image

from psanet_tf import PSANet, Segmenter
from psanet_tf.weights.registry import find_published

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_examples_are_found():
    assert len(EXAMPLES) >= 4
    assert "Segmenter.load" in EXAMPLES[0]
    assert "from psanet_tf import PSALayer" in EXAMPLES[1]
    assert "import psanet_tf\n" in EXAMPLES[2]


def test_named_weights_are_published():
    names = set(re.findall(r"mmseg/[\w-]+", README))
    assert len(names) >= 2
    for name in names:
        assert not find_published(name).is_backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    if number == 0:
        # The same but for the weights, which are fetched.
        network = PSANet(19, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 33, 3), use_psa=False)
        segmenter = Segmenter(network, evaluate={"base_size": 33})
        monkeypatch.setattr(Segmenter, "load", lambda source: segmenter)
        Image.new("RGB", (20, 10)).save("street.jpg")
    if number == 2 and not (folder / "segmenter.keras").exists():
        exec(EXAMPLES[1], {})
    exec(EXAMPLES[number], names)
    if number == 0:
        assert names["labels"].shape == (10, 20)
    elif number in (1, 2):
        assert (folder / "segmenter.keras").is_file()
        assert names["model"].output_shape == (None, 17, 17, 21)
    else:
        assert names["outputs"]["logits"].shape == (1, 97, 97, 21)
