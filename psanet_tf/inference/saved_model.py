"""Labels images with an exported SavedModel, by the protocol that is in its graph."""

import io
import os
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from PIL import Image

from psanet_tf.data.plain_copies import encoded_plainly
from psanet_tf.inference.attention import DIRECTIONS, AttentionMaps, checked_points, placed, placement_of_box
from psanet_tf.runtimes.metadata import ModelMetadata


class SavedModelLabeler:
    """A model that `psanet export` wrote.

    Args:
        path: folder of the SavedModel.

    Attributes:
        info: DatasetInfo of its classes.
        protocol, base_size: as of `Segmenter`.

    Raises:
        ValueError: it cannot be loaded, or does not have the signatures of `psanet export`.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        try:
            self._model = tf.saved_model.load(str(path))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise ValueError(f"{path} cannot be loaded as a SavedModel: {error}") from None
        missing = {"predict_bytes", "metadata"} - set(self._model.signatures)
        if missing == {"predict_bytes"} and "probabilities" in self._model.signatures:
            raise ValueError(
                f"{path} was exported with --pixels-only: a server answers from it, images are not labelled"
            )
        if missing:
            raise ValueError(
                f"{path} lacks the signatures {', '.join(sorted(missing))}: it was not made by psanet export"
            )
        answer = self._model.signatures["metadata"](keys=tf.constant(["all"]))
        metadata = ModelMetadata.from_json(answer["values"].numpy()[0])
        self.info = metadata.dataset_info()
        self.protocol, self.base_size = metadata.protocol, metadata.base_size
        self._input_size = metadata.input_size or (None, None)

    def labels(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W] for an image [H, W, C] as `info.images` says.

        Raises:
            ValueError: the image is larger than the model takes.
        """
        answer = self._ask("predict_bytes", self.info.images.checked(image))
        return np.asarray(Image.open(io.BytesIO(answer["label_bytes"].numpy()[0])))

    def attention(self, image: np.ndarray, points: Iterable[tuple[float, float]]) -> AttentionMaps:
        """Attention maps at points of an image; arguments, result and errors as of `attention_maps`.

        Raises:
            ValueError: also if the network was exported without attention, or the image is larger than the model takes.
        """
        if "attention" not in self._model.signatures:
            raise ValueError("the exported network has no attention to show")
        image = self.info.images.checked(image)
        points = checked_points(points, image.shape[:2])
        answer = self._ask("attention", image, points=tf.constant([points], tf.float32))
        maps = {name: answer[name][0].numpy() for name in DIRECTIONS if name in answer}
        map_size = next(iter(maps.values())).shape[1:]
        box = answer["image_box"][0].numpy()
        placement = placement_of_box(image.shape[:2], *placed(image.shape[:2], self._input_size), map_size, box)
        return AttentionMaps(points, maps.get("collect"), maps.get("distribute"), placement)

    def _ask(self, signature, image, **inputs):
        # Fast and lossless: the graph decodes it at once.
        encoded = encoded_plainly(image, self.info.images)
        try:
            return self._model.signatures[signature](image_bytes=tf.constant([encoded]), **inputs)
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"the SavedModel refused the image: {error.message}") from None
