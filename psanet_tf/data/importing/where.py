"""What the user says of where images and labels are, and how the labels are read."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Where:
    """What the user says of where things are and how they are read.

    Attributes:
        images, masks: folders, where their names do not tell, or the annotations come without the images.
        labels: whether values or colours of masks are read; None: as the files have it, if that is sure.
        palette: file of colours and classes.
        overlap: what pixels of several masks of one image are, see `ClassMasks`; None: "stop".
        skip: kinds of shapes to leave out.
        resize_masks: whether masks are enlarged that are a whole number of times smaller than their image.
    """

    images: Path | None = None
    masks: Path | None = None
    labels: Literal["value", "colour"] | None = None
    palette: Path | None = None
    overlap: Literal["stop", "last", "ignore"] | None = None
    skip: Collection[str] = ()
    resize_masks: bool = False
