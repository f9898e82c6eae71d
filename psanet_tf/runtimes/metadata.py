"""What a client must know of an exported model; travels in the SavedModel, as an asset and as a signature, or file."""

import dataclasses
import json

import numpy as np

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.image_format import ImageFormat

ASSET_NAME = "metadata.json"


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """Facts about an exported model.

    Attributes:
        dataset: name of the dataset that gave the classes.
        class_names: one per label.
        colors: [K][3], RGB 0..255.
        ignore_label: value of label images that is no class.
        input_size: (rows, columns) that the network takes; None if it takes any.
        mean, std: of the normalization ``(image - mean) / std``, done inside the graph, per channel.
        protocol: how `predict_bytes` labels an image of any size: "semseg" (`psanet_tf.SlidingWindow`), "mmseg"
            (`MMSegProtocol`), or None: in one pass at its own size.
        mode: "slide" if the network sees the resized image in crops, "whole" if in one piece.
        crop_size: (rows, columns) of these crops; None for mode "whole".
        base_size: of protocol "semseg": long side, in pixels, of an image at scale 1; else None.
        stride_rate: of protocol "semseg", mode "slide": distance of crops over their size; else None.
        scale: of protocol "mmseg": (long side, short side), in pixels, that an image is fitted into; else None.
        stride: of protocol "mmseg", mode "slide": distance of crops, (down, across); else None.
        align_corners: of protocol "mmseg": whether the resize of the logits aligns corners.
        scales: factors of the size at scale 1.
        flip: whether mirror images are averaged with.
        max_pixels, max_images, max_seen_pixels, max_label_pixels, max_probability_pixels, max_points: of one request;
            see `psanet_tf.runtimes.limits.RequestLimits`.
        precision: "float32", "bfloat16", "float16" or "int8", of the weights; the answers are float32 in each.
        implementation: "stock" or "custom", of the attention's window gather.
        directions: of the attention: "collect", "distribute"; empty for a network without it.
        package_version: of psanet_tf, which exported the model.
        training_long_side: median long side of the training images, in pixels; None if it is not known.
        device: "cpu" or "gpu", what the graph is fast on; it runs on both. "any" of files for other programs.
        channels, dtype: of images, uint8 [H, W, 3], RGB, by default.
        bands, display_range: what a picture of an image shows; see `psanet_tf.data.ImageFormat`.
        temperature: what logits are divided by in the graph, before the softmax; 1 without a calibration.
    """

    dataset: str
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_label: int
    input_size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    protocol: str | None
    mode: str
    crop_size: tuple[int, int] | None
    base_size: int | None
    stride_rate: float | None
    scale: tuple[int, int] | None
    stride: tuple[int, int] | None
    scales: tuple[float, ...]
    flip: bool
    max_pixels: int
    precision: str
    implementation: str
    directions: tuple[str, ...]
    package_version: str
    training_long_side: int | None = None
    device: str = "gpu"
    channels: int = 3
    dtype: str = "uint8"
    bands: tuple[int, ...] = (1, 2, 3)
    display_range: tuple[float, float] | None = None
    temperature: float = 1.0
    align_corners: bool | None = None
    max_images: int | None = None
    max_seen_pixels: int | None = None
    max_label_pixels: int | None = None
    max_probability_pixels: int | None = None
    max_points: int | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> "ModelMetadata":
        """The metadata in `text`.

        Raises:
            ValueError: not what `to_json` writes.
        """
        try:
            return cls(**{name: _tuples(value) for name, value in json.loads(text).items()})
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not the metadata of a psanet_tf model: {error}") from None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def images(self) -> ImageFormat:
        """What images the model takes."""
        return ImageFormat.from_dict(dataclasses.asdict(self))

    def dataset_info(self) -> DatasetInfo:
        """The classes, and what the images are, as a `DatasetInfo`."""
        return DatasetInfo(
            self.dataset,
            self.class_names,
            np.array(self.colors),
            self.ignore_label,
            long_side=self.training_long_side,
            images=self.images,
        )


def _tuples(value):
    """JSON's lists as tuples, as `ModelMetadata` has them."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
