"""`model:` section: which network is built (the arguments of `psanet_tf.PSANet`)."""

import difflib
from typing import Literal

from pydantic import Field, field_validator, model_validator

from psanet_tf.backbone_families import BACKBONES, PREPROCESSING
from psanet_tf.config.section import Section


class ModelSection(Section):
    backbone: str | None = Field(
        None,
        description="a network of keras.applications in place of the paper's ResNet, its strides made into dilations, "
        "e.g. ConvNeXtTiny (docs/backbones.md names them), or a .keras file of a network made of Keras's layers, whose "
        "graph it gives",
    )
    backbone_preprocessing: str | None = Field(
        None, description=f"what a backbone of a .keras file takes for an image: {', '.join(PREPROCESSING)}"
    )
    backbone_weights: str | None = Field(
        None,
        description="of backbone, before train.init: imagenet (what keras.applications fetches), a .weights.h5 or "
        ".keras file of it, or none for random ones",
    )
    output_stride: int = Field(
        8, ge=1, description="pixels between neighbouring features: 8, 16 or 32, or the backbone's own"
    )
    feature_layers: tuple[str, ...] | None = Field(
        None,
        description="layers of backbone that give the features of the auxiliary and of the main head; default: the "
        "last at half of its coarsest stride, and the last",
    )
    aux_head: bool = Field(True, description="false: the main head alone")
    depth: Literal[50, 101, 152] = Field(50, description="ResNet depth")
    blocks: tuple[int, int, int, int] | None = Field(
        None, description="bottleneck blocks per stage, for small networks; takes the place of depth"
    )
    width: int = Field(64, ge=4, description="channels of the stem and of the first stage's bottlenecks")
    variant: Literal["semseg", "mmseg"] = Field(
        "semseg", description="the original implementation's network, or MMSegmentation's"
    )
    align_corners: bool = Field(
        default_factory=lambda values: values.get("variant") != "mmseg",
        description="of the resize of the logits; default true for semseg, which takes nothing else, false for mmseg",
    )
    stem: Literal["deep", "classic", "v1c"] = Field(
        default_factory=lambda values: "v1c" if values.get("variant") == "mmseg" else "deep",
        description="deep: three 3x3 convolutions; v1c: MMSegmentation's narrower ones; classic: one 7x7 as in "
        "torchvision and keras.applications; default: deep for semseg, v1c for mmseg",
    )
    stride_in_1x1: bool = Field(
        False, description="strided blocks stride in their first 1x1 convolution, as in keras.applications"
    )
    use_psa: bool = Field(True, description="false: the dilated FCN without the attention module")
    psa_type: Literal["collect", "distribute", "bi-direction"] = "bi-direction"
    compact: bool = Field(False, description="one weight per position instead of one per relative offset")
    shrink_factor: int = Field(2, ge=1, description="the attention works on features shrunk by this")
    mask_size: tuple[int, int] | None = Field(
        None, description="rows and columns of the over-complete mask, odd for semseg; default 2h-1 x 2w-1"
    )
    mid_channels: int | None = Field(None, ge=1, description="channels inside the module; default 8 * width")
    normalization_factor: float | None = Field(1.0, description="divides the sums; null: mask rows * columns")
    psa_softmax: bool = True
    first_convolution: Literal["repeat", "mean", "new"] = Field(
        "repeat",
        description="of initial weights that were trained on other channels than data.channels: the first "
        "convolution's weights repeated over the channels, their mean for every channel (both scaled), or random ones",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="spatial dropout before both classifiers")

    @model_validator(mode="after")
    def _goes_together(self):
        if self.variant == "semseg" and not self.align_corners:
            raise ValueError("align_corners: false needs variant: mmseg; the semseg variant always aligns corners")
        if self.variant == "mmseg" and (self.stem != "v1c" or self.stride_in_1x1):
            raise ValueError(
                f"variant: mmseg needs stem: v1c and stride_in_1x1: false, got {self.stem} and "
                f"{str(self.stride_in_1x1).lower()}; leave them out"
            )
        if self.stem == "v1c" and self.width % 2:
            raise ValueError(f"stem: v1c begins with half of width, which must be even, got {self.width}")
        return self

    @model_validator(mode="after")
    def _backbone_fits(self):
        if self.backbone is None:
            names = ("backbone_weights", "backbone_preprocessing", "feature_layers")
            given = [name for name in names if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{given[0]} is for networks with a backbone, which is not set")
            if self.output_stride not in (8, 16, 32):
                raise ValueError(f"output_stride must be 8, 16 or 32 without a backbone, got {self.output_stride}")
            return self
        kinds = ", ".join(PREPROCESSING)
        if self.backbone in BACKBONES:
            if self.backbone_preprocessing is not None:
                raise ValueError(f"backbone_preprocessing is for .keras files; that of {self.backbone} is known")
        elif self.backbone_preprocessing not in PREPROCESSING:
            raise ValueError(
                f"backbone_preprocessing must say what {self.backbone} takes for an image: one of {kinds}, got "
                f"{self.backbone_preprocessing!r}"
            )
        usual = {"depth": 50, "blocks": None, "stem": "v1c" if self.variant == "mmseg" else "deep"}
        for name, value in (usual | {"stride_in_1x1": False}).items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} is of the ResNet without backbone: leave it out beside {self.backbone}")
        if self.feature_layers is not None and len(self.feature_layers) != 1 + self.aux_head:
            wanted = "two layers, of the auxiliary and the main head" if self.aux_head else "one layer"
            raise ValueError(f"feature_layers must name {wanted}, got {list(self.feature_layers)}")
        return self

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, name):
        if name is not None and name not in BACKBONES and not name.endswith(".keras"):
            near = difflib.get_close_matches(name, BACKBONES, n=3, cutoff=0.4)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise ValueError(
                f"no backbone is called {name!r}{hint}; there are {', '.join(BACKBONES)}; or a .keras file"
            )
        return name

    @field_validator("backbone_weights")
    @classmethod
    def _none_is_none(cls, source):
        return None if source == "none" else source

    @field_validator("blocks")
    @classmethod
    def _at_least_one_block(cls, blocks):
        if blocks is not None and min(blocks) < 1:
            raise ValueError(f"every stage needs at least one block, got {list(blocks)}")
        return blocks
