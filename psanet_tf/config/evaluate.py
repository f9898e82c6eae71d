"""`evaluate:` section: how a trained network labels images of any size."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from psanet_tf.config.section import Section

_Pixels = Annotated[int, Field(ge=1)]
_OF_SEMSEG = ("base_size", "stride_rate")
_OF_MMSEG = ("mode", "scale", "crop_size", "stride")


def _is_mmseg(values: dict[str, Any]) -> bool:
    return values["protocol"] == "mmseg"


class EvaluateSection(Section):
    protocol: Literal["semseg", "mmseg"] = Field(
        "semseg", description="semseg: the paper's sliding window; mmseg: MMSegmentation's"
    )
    base_size: int | None = Field(
        None,
        ge=1,
        description="semseg: long side, in pixels, of an image at scale 1; default: the paper's for ade20k and voc2012 "
        "(512) and cityscapes (2048), for other data the median long side of the training images",
    )
    stride_rate: float = Field(2 / 3, gt=0, le=1, description="semseg: distance of crops over their size")
    mode: Literal["whole", "slide"] | None = Field(
        default_factory=lambda values: "whole" if _is_mmseg(values) else None,
        description="mmseg: the resized image in one pass (default), or crop by crop",
    )
    scale: tuple[_Pixels, _Pixels] | None = Field(
        None, description="mmseg: [long side, short side], in pixels, into which an image at scale 1 is fitted"
    )
    crop_size: tuple[_Pixels, _Pixels] | None = Field(None, description="mmseg, mode slide: [height, width] of a crop")
    stride: tuple[_Pixels, _Pixels] | None = Field(
        None, description="mmseg, mode slide: distance of neighbouring crops, [down, across]"
    )
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0,), min_length=1, description="factors of the size at scale 1; probabilities are averaged over them"
    )
    flip: bool = Field(
        default_factory=lambda values: not _is_mmseg(values),
        description="average with the mirror image; default: true for semseg, false for mmseg",
    )
    batch_size: int = Field(
        2, ge=1, description="images per call of the network; a crop and its mirror image are two; more suits GPUs"
    )

    @model_validator(mode="after")
    def _keys_of_the_protocol(self) -> "EvaluateSection":
        is_mmseg = self.protocol == "mmseg"
        for name in _OF_SEMSEG if is_mmseg else _OF_MMSEG:
            default = type(self).model_fields[name].default if is_mmseg else None
            if getattr(self, name) != default:
                other = "semseg" if is_mmseg else "mmseg"
                raise ValueError(f"{name} belongs to protocol {other}, the protocol is {self.protocol}")
        if is_mmseg:
            if self.scale is None:
                raise ValueError("protocol mmseg needs scale: [long side, short side], e.g. [2048, 512] for ADE20K")
            for name in ("crop_size", "stride"):
                if (getattr(self, name) is None) != (self.mode == "whole"):
                    needs = "needs" if self.mode == "slide" else "takes no"
                    raise ValueError(f"mode {self.mode} {needs} {name}")
            if self.mode == "slide" and any(
                step > size for step, size in zip(self.stride, self.crop_size, strict=True)
            ):
                raise ValueError(f"stride {list(self.stride)} leaves gaps between crops of {list(self.crop_size)}")
        return self
