"""Writing checkpoints: `.keras` files of a plain PSANet."""

import os
import shutil
from pathlib import Path

import tensorflow as tf

from psanet_tf.files import atomic_file
from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet
from psanet_tf.training.memory import bytes_of


def plain_copy(model: PSANet) -> PSANet:
    """Another PSANet as `model` is used after training: float32, logits at input resolution, no optimizer, on the CPU.

    Its weights have to be set, `copy.set_weights(model.get_weights())`. Keras writes a compiled model's optimizer
    into `.keras` files too, two or three times the size of the weights.
    """
    with tf.device("CPU:0"):
        return PSANet.from_config(model.get_config() | {"zoom_factor": 8, "dtype": "float32"})


def save_checkpoint(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes a `.keras` file; an older one stays until the new one is whole."""
    with atomic_file(path, needed_bytes=bytes_of(model.variables)) as temporary:
        model.save(temporary)


def copy_checkpoint(source: Path, target: str | os.PathLike) -> None:
    """Copies a `.keras` file; an older one stays until the new one is whole."""
    with atomic_file(target, needed_bytes=source.stat().st_size) as temporary:
        shutil.copyfile(source, temporary)
