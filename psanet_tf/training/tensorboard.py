"""Curves and pictures for TensorBoard."""

import numpy as np
import tensorflow as tf

from psanet_tf.data.normalization import MEAN, STD
from psanet_tf.keras_api import keras
from psanet_tf.training.averaging import averaged_weights

_PICTURES = 4


class TensorBoard(keras.callbacks.Callback):
    """Writes each epoch's row as scalars, and input, truth and prediction of a few validation pictures.

    Args:
        folder: for the event files.
        keeper: Keeper; its rows are written.
        info: DatasetInfo.
        validation: tf.data.Dataset of (image, {"logits": label, ...}) batches.
    """

    def __init__(self, folder, keeper, info, validation):
        super().__init__()
        self.keeper = keeper
        self.info = info
        self._writer = tf.summary.create_file_writer(str(folder))
        self._batch = next(iter(validation.unbatch().batch(_PICTURES).take(1)))

    def on_epoch_end(self, epoch, logs=None):
        row = self.keeper.records.rows[-1]
        with self._writer.as_default(step=row["step"]):
            for key, value in row.items():
                if key not in ("epoch", "step"):
                    # A folder per quantity puts the curves of training and validation side by side.
                    name = key.removeprefix("val_")
                    tf.summary.scalar(f"{name}/{'validation' if key.startswith('val_') else 'training'}", value)
            tf.summary.image("input, truth, prediction", self._pictures(), max_outputs=_PICTURES)
        self._writer.flush()

    def _pictures(self):
        """uint8 [n, h, 3 * w, 3]"""
        images, labels = self._batch
        labels = labels["logits"].numpy()
        with averaged_weights(self.model):
            logits = self.model(images, training=False)["logits"]
        predictions = np.argmax(logits, axis=-1)
        # Logits and labels are coarser than the images where train.zoom_factor is below 8.
        every = (images.shape[1] - 1) // (labels.shape[1] - 1)
        pixels = np.clip(np.round(images.numpy() * STD + MEAN), 0, 255).astype(np.uint8)[:, ::every, ::every]
        return np.concatenate([pixels, self._colored(labels), self._colored(predictions)], axis=2)

    def _colored(self, labels):
        colors = np.zeros((256, 3), np.uint8)
        colors[: self.info.num_classes] = self.info.colors
        colors[self.info.ignore_label] = 0
        return colors[labels]
