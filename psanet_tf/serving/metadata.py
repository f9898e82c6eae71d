"""What a client must know of an exported model; travels in the SavedModel as an asset and as a signature."""

import dataclasses
import json

import numpy as np

from psanet_tf.data.catalog import DatasetInfo

ASSET_NAME = "metadata.json"
# A decoded image of this size takes 96 MB; more is refused before it is decoded.
MAX_PIXELS = 32_000_000


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """Facts about an exported model.

    Attributes:
        dataset: name of the dataset that gave the classes.
        class_names: one per label.
        colors: [K][3], RGB 0..255.
        ignore_label: value of label images that is no class.
        crop_size: (rows, columns) that the network takes; None for a model of whole images.
        mean, std: of the normalization ``(rgb - mean) / std``, done inside the graph.
        base_size, scales, flip, stride_rate: how `predict_bytes` labels an image of any size (the
            sliding-window protocol of `psanet_tf.SlidingWindow`).
        max_pixels: largest image that `predict_bytes` and `attention` take.
        precision: "float32" or "bfloat16".
        implementation: "stock" or "custom", of the attention's window gather.
        directions: of the attention: "collect", "distribute"; empty for a network without it.
        package_version: of psanet_tf, which exported the model.
        training_long_side: median long side of the training images, in pixels; None if it is not known.
    """

    dataset: str
    class_names: tuple
    colors: tuple
    ignore_label: int
    crop_size: tuple | None
    mean: tuple
    std: tuple
    base_size: int
    scales: tuple
    flip: bool
    stride_rate: float
    max_pixels: int
    precision: str
    implementation: str
    directions: tuple
    package_version: str
    training_long_side: int | None = None

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text):
        """The metadata in `text`.

        Raises:
            ValueError: not what `to_json` writes.
        """
        try:
            values = json.loads(text)
            lists = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            return cls(**lists)
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not the metadata of a psanet_tf model: {error}") from None

    @property
    def num_classes(self):
        return len(self.class_names)

    def dataset_info(self):
        """The classes as a `DatasetInfo`."""
        return DatasetInfo(
            self.dataset,
            self.class_names,
            np.array(self.colors),
            self.ignore_label,
            long_side=self.training_long_side,
        )
