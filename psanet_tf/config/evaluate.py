"""`evaluate:` section: the sliding-window protocol."""

from typing import Annotated

from pydantic import Field

from psanet_tf.config.section import Section


class EvaluateSection(Section):
    base_size: int | None = Field(
        None,
        ge=1,
        description="long side, in pixels, of an image at scale 1; default: the paper's for ade20k and voc2012 (512) "
        "and cityscapes (2048), for other data the median long side of the training images",
    )
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0,), min_length=1)
    flip: bool = Field(True, description="average with the mirrored crop")
    stride_rate: float = Field(2 / 3, gt=0, le=1, description="distance of crops over their size")
    batch_size: int = Field(
        2, ge=1, description="images per call of the network; a crop and its mirror image are two; more suits GPUs"
    )
