"""How sure a network is, as files: confidence as grey images, probabilities as NumPy archives."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from psanet_tf.files import atomic_file


def save_confidence(path: str | os.PathLike, confidence: np.ndarray) -> None:
    """Writes the probability of each pixel's label as a grey PNG of 8 bits: 255 is certain.

    Args:
        path: where to.
        confidence: float [H, W], 0 to 1.
    """
    values = np.round(np.clip(confidence, 0, 1) * 255).astype(np.uint8)
    with atomic_file(path, suffix=".png") as temporary:
        Image.fromarray(values).save(temporary, format="PNG")


def save_probabilities(path: str | os.PathLike, probabilities: np.ndarray, class_names: Sequence[str]) -> None:
    """Writes probabilities as ``.npz``: ``probabilities`` float16 [H, W, K], and ``classes``, the K names.

    float16 keeps three digits, and less of what is below 0.0001: sums over the classes are 1 within 0.002.

    Args:
        path: where to.
        probabilities: float [H, W, K].
        class_names: K names.
    """
    with atomic_file(path, suffix=".npz", needed_bytes=2 * probabilities.size) as temporary:
        np.savez_compressed(temporary, probabilities=probabilities.astype(np.float16), classes=np.array(class_names))
