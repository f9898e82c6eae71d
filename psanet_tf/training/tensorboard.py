"""Curves and images for TensorBoard."""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.files import check_space
from psanet_tf.keras_api import keras
from psanet_tf.training.averaging import averaged_weights
from psanet_tf.training.callbacks import CheckpointCallback

_IMAGES = 4


class TensorBoard(keras.callbacks.Callback):
    """Writes each epoch's row as scalars, and input, truth and prediction of a few validation images.

    Args:
        folder: for the event files.
        checkpoints: CheckpointCallback; its rows are written.
        info: DatasetInfo.
        make_validation: returns the tf.data.Dataset of (image, labels) batches to take images from.
        zoom_factor: of the logits.
    """

    def __init__(
        self,
        folder: Path,
        checkpoints: CheckpointCallback,
        info: DatasetInfo,
        make_validation: Callable[[], tf.data.Dataset],
        zoom_factor: int,
    ) -> None:
        super().__init__()
        self._folder = folder
        self.checkpoints = checkpoints
        self.info = info
        self._writer = tf.summary.create_file_writer(str(folder))
        self._every = 8 // zoom_factor
        self._make_validation = make_validation
        # One graph, one image at a time: called eagerly, a model keeps what every layer gives until the end.
        self._predict = tf.function(self._labels_of)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = self.checkpoints.records.rows[-1]
        # TensorFlow's writer says nothing where there is no room, and goes on.
        check_space(self._folder / "events", _IMAGES * 9 * math.prod(self.model.input_shape[1:3]) + 100_000)
        with self._writer.as_default(step=row["step"]):
            for key, value in row.items():
                if key not in ("epoch", "step"):
                    # A folder per quantity puts the curves of training and validation side by side.
                    name = key.removeprefix("val_")
                    tf.summary.scalar(f"{name}/{'validation' if key.startswith('val_') else 'training'}", value)
            tf.summary.image("input, truth, prediction", self._images(), max_outputs=_IMAGES)
        self._writer.flush()

    def write_steps(self, step: int, values: Mapping[str, float]) -> None:
        """Writes what `StepLog` says as curves of their own."""
        check_space(self._folder / "events", 100_000)
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"steps/{name}", value)
        self._writer.flush()

    def _images(self):
        """uint8 [n, h, 3 * w, 3]"""
        images, labels = self._examples
        with averaged_weights(self.model):
            predictions = np.concatenate([self._predict(images[index : index + 1]) for index in range(len(images))])
        pixels = np.stack([self.info.images.picture(self.info.images.denormalized(image)) for image in images])
        parts = [part[:, :: self._every, :: self._every] for part in (pixels, self._colored(labels))]
        return np.concatenate([*parts, self._colored(predictions)], axis=2)

    @functools.cached_property
    def _examples(self):
        images, labels = next(iter(self._make_validation().unbatch().batch(_IMAGES)))
        return images.numpy(), _main(labels).numpy()

    def _labels_of(self, image):
        return tf.argmax(_main(self.model(image, training=False)), axis=-1)

    def _colored(self, labels):
        colors = np.zeros((256, 3), np.uint8)
        colors[: self.info.num_classes] = self.info.colors
        colors[self.info.ignore_label] = 0
        return colors[labels]


def _main(values):
    """What belongs to the main output, of networks with an auxiliary one and without."""
    return values["logits"] if isinstance(values, dict) else values
