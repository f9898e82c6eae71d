"""The list of published weights."""

import re

import pytest

from psanet_tf import PSANet
from psanet_tf.data.catalog import dataset_info
from psanet_tf.weights.registry import backbone_for, find_published, is_published_name, published_weights


def test_every_entry_is_complete():
    entries = published_weights()
    assert len(entries) == 16 + 2 + 6 + 3
    for name, entry in entries.items():
        assert name == entry.name and is_published_name(name)
        assert re.fullmatch(r"sha256:[0-9a-f]{8}|md5:[0-9a-f]{32}", entry.checksum)
        # Owners of PyTorch files put the first digits of the checksum into the name.
        if entry.checksum.startswith("sha256:"):
            assert entry.url.endswith(f"-{entry.checksum.removeprefix('sha256:')}.pth")
        assert entry.url.startswith("https://") and entry.source.startswith("https://")
        assert entry.is_backbone == (not entry.evaluate)


def test_the_networks_of_mmsegmentation():
    networks = [entry for entry in published_weights().values() if not entry.is_backbone]
    assert len(networks) == 16
    for entry in networks:
        assert entry.model["num_classes"] == dataset_info(entry.dataset).num_classes
        assert entry.model["align_corners"] == (entry.evaluate["mode"] == "slide")
        assert 40 < entry.scores["mIoU"] < 81
    entry = find_published("mmseg/psanet_r50-d8_4xb2-80k_cityscapes-769x769")
    assert entry.model == {
        "variant": "mmseg",
        "num_classes": 19,
        "mask_size": (97, 97),
        "align_corners": True,
        "input_shape": (769, 769, 3),
    }
    assert entry.evaluate == {
        "protocol": "mmseg",
        "mode": "slide",
        "scale": (2049, 1025),
        "crop_size": (769, 769),
        "stride": (513, 513),
    }
    entry = find_published("mmseg/psanet_r101-d8_4xb4-160k_ade20k-512x512")
    assert (entry.depth, entry.stem, entry.dataset, entry.model["mask_size"]) == (101, "v1c", "ade20k", (66, 66))
    assert entry.scores == {"mIoU": 43.74, "mIoU, multi-scale": 45.38}
    assert entry.file_name == "psanet_r101-d8_512x512_160k_ade20k_20200615_161537-dbfa564c.pth"


@pytest.mark.parametrize(
    "name",
    ["mmseg/psanet_r50-d8_4xb2-80k_cityscapes-769x769", "mmseg/psanet_r101-d8_4xb4-160k_ade20k-512x512"],
)
def test_the_arguments_are_those_of_psanet(name):
    """Of a narrow one with few blocks; all else, the sizes included, is the published network's."""
    entry = find_published(name)
    model = PSANet(depth=entry.depth, stem=entry.stem, blocks=(1, 1, 1, 1), width=2, **entry.model)
    assert tuple(model.get_layer("logits").output.shape) == (
        None,
        *entry.model["input_shape"][:2],
        entry.model["num_classes"],
    )
    assert model.get_config()["mask_size"] == entry.model["mask_size"]


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one():
    with pytest.raises(ValueError, match=r"'mmseg/resnet50v1c'; nearest: mmseg/resnet50_v1c.*psanet weights list"):
        find_published("mmseg/resnet50v1c")
    with pytest.raises(ValueError, match="no published weights are called 'x'"):
        find_published("x")


@pytest.mark.parametrize("text", ["net.pth", "runs/ade", "a/mmseg/b", "mmseg", "./mmseg/resnet50_v1c"])
def test_paths_are_no_names(text):
    assert not is_published_name(text)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((50, "classic", False), "torchvision/resnet50_imagenet1k_v1"),
        ((152, "classic", True), "keras/resnet152_imagenet"),
        ((101, "v1c", False), "mmseg/resnet101_v1c"),
    ],
)
def test_a_backbone_that_fits(arguments, name):
    assert backbone_for(*arguments).name == name


@pytest.mark.parametrize("arguments", [(152, "v1c", False), (50, "deep", False)])
def test_no_backbone_fits(arguments):
    with pytest.raises(ValueError, match=rf"ResNet-{arguments[0]} with stem '{arguments[1]}': there are some for stem"):
        backbone_for(*arguments)
