"""Published weights by name: where they lie, and all that has to be known to use them."""

import csv
import dataclasses
import difflib
import functools
from importlib import resources
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

_MMSEG_SOURCE = "https://github.com/open-mmlab/mmsegmentation/tree/main/configs/psanet"
_MMSEG_DATASETS = {"Cityscapes": "cityscapes", "ADE20K": "ade20k", "Pascal VOC 2012 + Aug": "voc2012"}
_KERAS_FOLDER = "https://storage.googleapis.com/tensorflow/keras-applications/resnet"


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """One set of published weights: a whole network, or a backbone trained on ImageNet.

    Attributes:
        name: what `--weights`, `--init` and `psanet weights` take, ``"project/network"``.
        url: where the file lies.
        checksum: of the file: ``"sha256:"`` or ``"md5:"`` and its hex digits, as many as its owners publish.
        naming: whose names its tensors have: ``"mmseg"``, ``"torchvision"``, ``"keras"``.
        depth, stem: of the ResNet, as `PSANet` takes them.
        dataset: what it was trained on: a dataset of `psanet_tf.data.dataset_info`, or ``"imagenet"``.
        model: further arguments of `PSANet`, with the crop of its training as input shape; those of backbones are what
            a network needs to take them.
        evaluate: its authors' prediction protocol, keys of the section ``evaluate:``; backbones have none.
        scores: its authors', in percent: mIoU, or top-1 accuracy for backbones.
        licence: of the weights.
        source: page of its authors that describes it.
    """

    name: str
    url: str
    checksum: str
    naming: str
    depth: int
    stem: str
    dataset: str
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    evaluate: dict[str, Any] = dataclasses.field(default_factory=dict)
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    licence: str = "Apache-2.0"
    source: str = ""

    @property
    def is_backbone(self) -> bool:
        return self.dataset == "imagenet"

    @property
    def file_name(self) -> str:
        """The file's name on its owners' server."""
        return PurePosixPath(urlsplit(self.url).path).name


@functools.cache
def published_weights() -> dict[str, PublishedWeights]:
    """{name: PublishedWeights} of all that is known, whole networks first."""
    entries = [*_mmseg_networks(), *_mmseg_backbones(), *_torchvision_backbones(), *_keras_backbones()]
    return {entry.name: entry for entry in entries}


def is_published_name(text: str) -> bool:
    """Whether `text` has the form of a name here, whose project is one of those known."""
    return text.partition("/")[0] in {name.partition("/")[0] for name in published_weights()} and text.count("/") == 1


def find_published(name: str) -> PublishedWeights:
    """The weights of a name.

    Raises:
        ValueError: there are none; the message names the nearest.
    """
    entries = published_weights()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3, cutoff=0.5)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"no published weights are called {name!r}{hint} (psanet weights list shows all names)")
    return entries[name]


def backbone_for(depth: int, stem: str, stride_in_1x1: bool) -> PublishedWeights:
    """The ImageNet weights that fit a `PSANet` of these arguments.

    Raises:
        ValueError: none do; the message says which networks some are published for.
    """
    naming = {"v1c": "mmseg", "classic": "keras" if stride_in_1x1 else "torchvision"}.get(stem)
    for entry in published_weights().values():
        # Of torchvision's two sets the first one is trained by the recipe of the paper's time.
        if entry.is_backbone and (entry.naming, entry.depth, entry.stem) == (naming, depth, stem):
            return entry
    raise ValueError(
        f"no ImageNet weights are published for a ResNet-{depth} with stem {stem!r}: there are some for stem 'classic' "
        "with depth 50, 101 or 152 and for stem 'v1c' with depth 50 or 101"
    )


def _mmseg_networks():
    text = resources.files("psanet_tf.weights").joinpath("mmsegmentation.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        align_corners = row["align_corners"] == "True"
        evaluate = {"protocol": "mmseg", "mode": row["test_mode"], "scale": _numbers(row["test_scale"])}
        if row["test_mode"] == "slide":
            evaluate |= {"crop_size": _numbers(row["test_crop"]), "stride": _numbers(row["test_stride"])}
        yield PublishedWeights(
            name=f"mmseg/{row['name']}",
            url=row["url"],
            checksum=f"sha256:{row['sha256_prefix']}",
            naming="mmseg",
            depth=int(row["depth"]),
            stem="v1c",
            dataset=_MMSEG_DATASETS[row["dataset"]],
            model={
                "variant": "mmseg",
                "num_classes": int(row["classes"]),
                "mask_size": _numbers(row["mask_size"]),
                "align_corners": align_corners,
                "input_shape": (*_numbers(row["crop"]), 3),
            },
            evaluate=evaluate,
            scores={
                key: float(row[column])
                for key, column in (("mIoU", "miou"), ("mIoU, multi-scale", "miou_multi_scale_flip"))
                if row[column]
            },
            source=_MMSEG_SOURCE,
        )


def _mmseg_backbones():
    for depth, digits in ((50, "2cccc1ad"), (101, "e67eebb6")):
        yield PublishedWeights(
            name=f"mmseg/resnet{depth}_v1c",
            url=f"https://download.openmmlab.com/pretrain/third_party/resnet{depth}_v1c-{digits}.pth",
            checksum=f"sha256:{digits}",
            naming="mmseg",
            depth=depth,
            stem="v1c",
            dataset="imagenet",
            source="https://github.com/open-mmlab/mmsegmentation",
        )


def _torchvision_backbones():
    for depth, version, digits, accuracy in (
        (50, 1, "0676ba61", 76.130),
        (101, 1, "63fe2227", 77.374),
        (152, 1, "394f9c45", 78.312),
        (50, 2, "11ad3fa6", 80.858),
        (101, 2, "cd907fc2", 81.886),
        (152, 2, "f82ba261", 82.284),
    ):
        yield PublishedWeights(
            name=f"torchvision/resnet{depth}_imagenet1k_v{version}",
            url=f"https://download.pytorch.org/models/resnet{depth}-{digits}.pth",
            checksum=f"sha256:{digits}",
            naming="torchvision",
            depth=depth,
            stem="classic",
            dataset="imagenet",
            scores={"top-1": accuracy},
            licence="BSD-3-Clause",
            source=f"https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet{depth}.html",
        )


def _keras_backbones():
    for depth, digest, accuracy in (
        (50, "4d473c1dd8becc155b73f8504c6f6626", 74.9),
        (101, "88cf7a10940856eca736dc7b7e228a21", 76.4),
        (152, "ee4c566cf9a93f14d82f913c2dc6dd0c", 76.6),
    ):
        yield PublishedWeights(
            name=f"keras/resnet{depth}_imagenet",
            url=f"{_KERAS_FOLDER}/resnet{depth}_weights_tf_dim_ordering_tf_kernels_notop.h5",
            checksum=f"md5:{digest}",
            naming="keras",
            depth=depth,
            stem="classic",
            dataset="imagenet",
            model={"stride_in_1x1": True},
            scores={"top-1": accuracy},
            licence="MIT",
            source="https://keras.io/api/applications/resnet/",
        )


def _numbers(text):
    """(512, 1024) for "512x1024" and for "(512, 1024)"."""
    return tuple(int(part) for part in text.strip("()").replace("x", ",").split(","))
