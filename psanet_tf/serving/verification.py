"""Does an exported model answer as the Keras model does?"""

from dataclasses import dataclass

import numpy as np

from psanet_tf.data.normalization import normalize
from psanet_tf.serving.errors import ServingError
from psanet_tf.serving.servable import Servable
from psanet_tf.serving.warmup import replay

# (largest mean difference of probabilities, lead of the first class over the second that must not be overturned)
_TOLERANCE = {"float32": (1e-4, 0.01), "bfloat16": (0.02, 0.25)}
_LEAST_AGREEMENT = 0.999
_ANY_SIZE = (97, 129)  # of the form 8n + 1, for models without a crop size


@dataclass(frozen=True)
class Agreement:
    """How an exported model compares with the Keras model on a made image.

    Attributes:
        labels: share of pixels with the same label.
        probabilities: mean absolute difference of the probabilities.
        largest: largest absolute difference of a probability.
    """

    labels: float
    probabilities: float
    largest: float


def verify_export(path, model, metadata):
    """Loads the SavedModel at `path` as a server does, replays its warm-up and compares it with `model`.

    Args:
        path: folder with `saved_model.pb`.
        model: the `PSANet` that was exported, in its own precision.
        metadata: `ModelMetadata`.

    Returns:
        Agreement.

    Raises:
        ValueError: it cannot be loaded, or its answers differ by more than its precision explains.
    """
    size = tuple(model.input_shape[1:3])
    image = made_image(_ANY_SIZE if None in size else size)
    expected = _softmax(model_logits(model, image))
    try:
        servable = Servable(path, 0)
        answer = servable.run("probabilities", {"images": image[None]})["probabilities"][0]
        labels = servable.run("serving_default", {"images": image[None]})["labels"][0]
        replay(servable)
        servable.retire()
    except ServingError as error:
        raise ValueError(f"the exported model does not run: {error.message}") from error
    difference = np.abs(answer - expected)
    equal = labels == expected.argmax(-1)
    first_two = np.sort(expected, axis=-1)[..., -2:]
    allowed, lead = _TOLERANCE[metadata.precision]
    decided = first_two[..., 1] - first_two[..., 0] > lead
    agreement = Agreement(float(equal.mean()), float(difference.mean()), float(difference.max()))
    if not agreement.probabilities <= allowed or (decided.any() and equal[decided].mean() < _LEAST_AGREEMENT):
        raise ValueError(
            f"the exported model does not answer as the Keras model does: {agreement.labels:.2%} of the labels are "
            f"equal, probabilities differ by {agreement.probabilities:.2g} on average (allowed: {allowed:g})"
        )
    return agreement


def model_logits(model, image):
    """Logits [H, W, K] of the Keras model for one uint8 image [H, W, 3] of a size that it takes."""
    return np.asarray(model.inference()(normalize(image)[None], training=False)[0], np.float32)


def made_image(size, seed=0):
    """uint8 [H, W, 3] with soft blobs of colour: nothing special, but neither flat nor white noise."""
    generator = np.random.default_rng(seed)
    rows, columns = (np.linspace(0, 1, length)[:, None] for length in size)
    image = np.zeros((*size, 3))
    for frequency in range(1, 6):
        phase = generator.uniform(0, 2 * np.pi, (2, 3))
        weight = generator.uniform(-1, 1, 3)
        vertical = np.sin(2 * np.pi * frequency * rows + phase[0])[:, None]
        horizontal = np.cos(2 * np.pi * frequency * columns + phase[1])[None]
        image += weight * vertical * horizontal
    image = (image - image.min()) / (image.max() - image.min())
    return (255 * image).astype(np.uint8)


def _softmax(logits):
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)
