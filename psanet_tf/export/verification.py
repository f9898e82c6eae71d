"""Does an exported model answer as the Keras model does?"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from psanet_tf.config import EvaluateSection
from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.data.pixels import decode_label
from psanet_tf.data.plain_copies import encoded_plainly
from psanet_tf.export.frozen import pads_own_images
from psanet_tf.inference.attention import attention_matrices, placed, placement_of_box
from psanet_tf.inference.protocols import build_labeler
from psanet_tf.inference.whole_image import WholeImage, any_size
from psanet_tf.models import PSANet
from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.runtimes.model_file import IMAGE_BOX, open_model_file, output_names
from psanet_tf.runtimes.saved_model import SavedModelSession
from psanet_tf.runtimes.warmup import replay
from psanet_tf.weights.calibration import tempered

# (largest mean difference of probabilities, lead of the first class over the second that must not be overturned)
_TOLERANCE = {"float32": (1e-4, 0.01), "bfloat16": (0.02, 0.25), "float16": (0.02, 0.25), "int8": (0.05, 0.5)}
# Sum of the differences of attention weights over the sum of the weights, 2 at most after a softmax. A sharp softmax
# makes much of few bits: there it is other maps that are to be found out, the labels say how good the network is.
_ATTENTION_TOLERANCE = {"float32": 1e-3, "float16": 0.2, "int8": 1.0}
_LEAST_AGREEMENT = 0.999
_COMPARED = 4  # images of a calibration
# For models without an input size: one of the form 8n + 1, to which images are padded, or, where they are not, another.
_ANY_SIZE = {"semseg": (97, 129), "mmseg": (90, 123)}


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How an exported model compares with the Keras model on a made image.

    Attributes:
        labels: share of pixels with the same label, the least of what was compared.
        probabilities: mean absolute difference of the probabilities.
        largest: largest absolute difference of a probability.
        attention: sum of the absolute differences of attention weights over the sum of the weights; None where they
            were not compared.
    """

    labels: float
    probabilities: float
    largest: float
    attention: float | None = None


def verify_export(path: str | os.PathLike, model: PSANet, metadata: ModelMetadata) -> Agreement:
    """Loads the SavedModel at `path` as a server does, replays its warm-up and compares it with `model`.

    Compared are the network's own answers and, but for the paper's protocol, which would take long, the labels of an
    image of any size with those of `build_labeler`.

    Args:
        path: folder with `saved_model.pb`.
        model: the `PSANet` that was exported, in its own precision.
        metadata: `ModelMetadata`.

    Returns:
        Agreement.

    Raises:
        ValueError: it cannot be loaded, or its answers differ by more than its precision explains.
    """
    if metadata.input_size is None:
        model = any_size(model)
    image = made_image(metadata.input_size or _ANY_SIZE[model.variant], images=metadata.images)
    expected = _softmax(model_logits(model, image, metadata.images) / metadata.temperature)
    of_any_size = metadata.protocol != "semseg"
    try:
        session = SavedModelSession(path)
        answer = session.run("probabilities", {"images": image[None]})["probabilities"][0]
        pairs = [(session.run("serving_default", {"images": image[None]})["labels"][0], expected)]
        if of_any_size and "predict_bytes" in session.signatures:
            data = np.array([encoded_plainly(image, metadata.images)], object)
            encoded = session.run("predict_bytes", {"image_bytes": data})["label_bytes"][0]
            pairs.append(
                (
                    decode_label(encoded, "predict_bytes"),
                    build_labeler(model, _protocol(metadata), metadata.images)(image),
                )
            )
        replay(session)
        session.close()
    except ServingError as error:
        raise ValueError(f"the exported model does not run: {error.message}") from error
    return _agreement(answer, expected, pairs, metadata.precision)


def verify_file(
    path: str | os.PathLike, model: PSANet, metadata: ModelMetadata, images: Sequence[np.ndarray] = ()
) -> Agreement:
    """Loads a model file with the runtime that it is for and compares its answers with those of `model`.

    Args:
        path: as of `open_model_file`.
        model: the `PSANet` that was exported.
        metadata: `ModelMetadata`.
        images: [H, W, C] each, of which the first few are compared; default: a made one.

    Returns:
        Agreement.

    Raises:
        ValueError: it cannot be loaded, says something else of itself, or its answers differ by more than its precision
            explains.
    """
    file = open_model_file(path)
    if file.metadata != metadata:
        raise ValueError(f"the exported model says other things of itself than it should: {file.metadata}")
    if metadata.input_size is None:
        model = any_size(model)
    if not len(images):
        sizes = _ANY_SIZE.values() if metadata.input_size is None else [metadata.input_size]
        images = [made_image(size, images=metadata.images) for size in sizes]
    inference = model.inference()
    reference = WholeImage(
        lambda inputs: tempered(inference(inputs, training=False), metadata.temperature),
        model.num_classes,
        pads_own_images(model, metadata),
        metadata.images,
    )
    images = images[:_COMPARED]
    answers = [file.run(image[None], output_names(metadata)) for image in images]
    expected = [reference(image) for image in images]
    pairs = [(answer["labels"][0], wanted) for answer, wanted in zip(answers, expected, strict=True)]
    pairs += [(answer["labels"], answer["probabilities"]) for answer in answers]
    found, wanted = (
        np.concatenate([values.reshape(-1, metadata.num_classes) for values in arrays])
        for arrays in ([answer["probabilities"] for answer in answers], expected)
    )
    agreement = _agreement(found, wanted, pairs, metadata.precision)
    if not metadata.directions:
        return agreement
    return dataclasses.replace(agreement, attention=_attention_difference(model, images, answers, metadata))


def _attention_difference(model, images, answers, metadata):
    """What `Agreement` says of the attention in the file's answers for images that need no padding.

    Raises:
        ValueError: it is more than the precision explains, or the maps lie elsewhere.
    """
    difference = total = 0.0
    for image, answer in zip(images, answers, strict=True):
        size = image.shape[:2]
        if placed(size, model.input_shape[1:3])[2] != size:
            continue
        matrices, placement = attention_matrices(model, image, metadata.images)
        where = placement_of_box(size, size, (0, 0), size, placement.map_size, answer[IMAGE_BOX][0])
        if not np.allclose([*where.first, *where.step], [*placement.first, *placement.step], rtol=1e-3, atol=1e-2):
            raise ValueError(
                f"the exported model puts its attention elsewhere than the Keras model does: at {where.first}, every "
                f"{where.step} pixels, instead of at {placement.first}, every {placement.step} pixels"
            )
        for direction, matrix in matrices.items():
            expected = matrix.reshape(2 * placement.map_size)
            difference += float(np.abs(answer[direction][0] - expected).sum())
            total += float(np.abs(expected).sum())
    relative, allowed = difference / total, _ATTENTION_TOLERANCE[metadata.precision]
    if not relative <= allowed:
        raise ValueError(
            f"the exported model's attention is not that of the Keras model: weights differ by {relative:.2g} of their "
            f"sum (allowed: {allowed:g})"
        )
    return relative


def _agreement(answer, expected, pairs, precision):
    """The `Agreement` of probabilities, and of pairs of labels and probabilities.

    Raises:
        ValueError: they differ by more than the precision explains.
    """
    difference = np.abs(answer - expected)
    allowed, lead = _TOLERANCE[precision]
    shares, decided_shares = zip(*(_equal_shares(*pair, lead) for pair in pairs), strict=True)
    agreement = Agreement(min(shares), float(difference.mean()), float(difference.max()))
    if not agreement.probabilities <= allowed or min(decided_shares) < _LEAST_AGREEMENT:
        raise ValueError(
            f"the exported model does not answer as the Keras model does: {agreement.labels:.2%} of the labels are "
            f"equal, probabilities differ by {agreement.probabilities:.2g} on average (allowed: {allowed:g})"
        )
    return agreement


def model_logits(model: PSANet, image: np.ndarray, images: ImageFormat = PHOTOGRAPHS) -> np.ndarray:
    """Logits [H, W, K] of the Keras model for one image [H, W, C] of a size that it takes."""
    return np.asarray(model.inference()(images.normalize(image)[None], training=False)[0], np.float32)


def made_image(size: Sequence[int], seed: int = 0, images: ImageFormat = PHOTOGRAPHS) -> np.ndarray:
    """[H, W, C] with soft blobs of colour: nothing special, but neither flat nor white noise.

    Values reach from 0 to 255, or where images are no photographs over two deviations to either side of the mean.
    """
    channels = images.channels
    generator = np.random.default_rng(seed)
    rows, columns = (np.linspace(0, 1, length)[:, None] for length in size)
    image = np.zeros((*size, channels))
    for frequency in range(1, 6):
        phase = generator.uniform(0, 2 * np.pi, (2, channels))
        weight = generator.uniform(-1, 1, channels)
        vertical = np.sin(2 * np.pi * frequency * rows + phase[0])[:, None]
        horizontal = np.cos(2 * np.pi * frequency * columns + phase[1])[None]
        image += weight * vertical * horizontal
    image = (image - image.min()) / (image.max() - image.min())
    return (255 * image).astype(np.uint8) if images.is_photograph else images.denormalized(4 * image - 2)


def _protocol(metadata):
    """What `build_labeler` takes for the protocol of an export."""
    if metadata.protocol is None:
        return None
    names = ("protocol", "mode", "scale", "crop_size", "stride", "scales", "flip")
    return EvaluateSection(**{name: getattr(metadata, name) for name in names})


def _equal_shares(labels, probabilities, lead):
    """Share of equal labels: of all pixels, and of those whose first class leads by more than `lead` (1 if none)."""
    equal = labels == probabilities.argmax(-1)
    first_two = np.sort(probabilities, axis=-1)[..., -2:]
    decided = first_two[..., 1] - first_two[..., 0] > lead
    return float(equal.mean()), float(equal[decided].mean()) if decided.any() else 1.0


def _softmax(logits):
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)
