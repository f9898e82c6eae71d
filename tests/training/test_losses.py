"""SegmentationLoss against plain NumPy, and its place in Keras's scaling."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.losses import SegmentationLoss


def reference(labels, logits, class_weights=None, smoothing=0.0, keep=None):
    """Sum of weighted losses over the sum of weights, pixel by pixel (PyTorch's definition)."""
    classes = logits.shape[-1]
    class_weights = np.ones(classes) if class_weights is None else np.asarray(class_weights)
    logits = logits.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total = weight = 0.0
    for index in np.ndindex(labels.shape):
        label = labels[index]
        if label == 255 or (keep is not None and not keep[index]):
            continue
        smooth = -(class_weights * log_p[index]).sum() / classes
        total += (1 - smoothing) * class_weights[label] * -log_p[index][label] + smoothing * smooth
        weight += class_weights[label]
    return total / weight


@pytest.fixture
def batch():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, (3, 6, 7)).astype(np.uint8)
    labels[0, :4] = 255
    labels[2, :, 2] = 255
    return labels, rng.normal(size=(3, 6, 7, 5)).astype(np.float32) * 3


@pytest.mark.parametrize("class_weights", [None, [1.0, 0.0, 2.0, 0.5, 3.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_reference(batch, class_weights, smoothing):
    labels, logits = batch
    loss = SegmentationLoss(class_weights=class_weights, label_smoothing=smoothing)(labels, logits)
    assert float(loss) == pytest.approx(reference(labels, logits, class_weights, smoothing), rel=1e-6)


def test_equals_torch(batch):
    torch = pytest.importorskip("torch")
    labels, logits = batch
    weights = [1.0, 0.5, 2.0, 0.5, 3.0]
    expected = torch.nn.CrossEntropyLoss(torch.tensor(weights), ignore_index=255, label_smoothing=0.2)(
        torch.tensor(logits).permute(0, 3, 1, 2), torch.tensor(labels.astype(np.int64))
    )
    loss = SegmentationLoss(class_weights=weights, label_smoothing=0.2)(labels, logits)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_hard_example_mining_takes_pixels_below_the_threshold_and_each_images_hardest(batch):
    labels, logits = batch
    probability = tf.nn.softmax(logits).numpy()
    true = np.take_along_axis(probability, np.where(labels == 255, 0, labels)[..., None].astype(int), -1)[..., 0]
    keep = (true < 0.3) & (labels != 255)
    for image in range(3):
        valid = np.argwhere(labels[image] != 255)
        count = int(np.ceil(0.5 * len(valid)))
        hardest = sorted(valid.tolist(), key=lambda index: true[image][tuple(index)])[:count]
        for index in hardest:
            keep[image][tuple(index)] = True
    loss = SegmentationLoss(ohem_threshold=0.3, ohem_min_kept=0.5)(labels, logits)
    assert float(loss) == pytest.approx(reference(labels, logits, keep=keep), rel=1e-6)
    assert 0 < keep.sum() < (labels != 255).sum()


def test_everything_ignored_is_zero_with_zero_gradient():
    logits = tf.Variable(np.ones((2, 3, 3, 4), np.float32))
    with tf.GradientTape() as tape:
        loss = SegmentationLoss()(np.full((2, 3, 3), 255, np.uint8), logits)
    assert float(loss) == 0
    np.testing.assert_array_equal(tape.gradient(loss, logits), 0)


@pytest.mark.parametrize("options", [{}, {"class_weights": [1.0, 2.0, 1.0, 1.0, 1.0]}, {"ohem_threshold": 0.5}])
def test_two_replicas_with_uneven_labels_equal_one_device(batch, two_replicas, options):
    labels, logits = (np.concatenate([array, array[:1]]) for array in batch)
    loss = SegmentationLoss(**options)

    def step(y, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(y, x)
        return value, tape.gradient(value, x)

    expected, gradient = step(tf.constant(labels), tf.constant(logits))
    dataset = tf.data.Dataset.from_tensor_slices((labels, logits)).batch(4)
    distributed = next(iter(two_replicas.experimental_distribute_dataset(dataset)))
    values, gradients = two_replicas.run(step, distributed)
    np.testing.assert_allclose(two_replicas.reduce("SUM", values, axis=None), expected, rtol=1e-6)
    both = np.concatenate([part.numpy() for part in two_replicas.experimental_local_results(gradients)])
    np.testing.assert_allclose(both, gradient, atol=1e-8)


def test_comes_back_from_its_config():
    loss = SegmentationLoss(
        254, class_weights=[1, 2], label_smoothing=0.1, ohem_threshold=0.7, ohem_min_kept=0.5, name="x"
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"ohem_threshold": 0.0}, "ohem_threshold"),
        ({"ohem_min_kept": 1.5}, "ohem_min_kept"),
        ({"class_weights": [0.0, 0.0]}, "class_weights"),
        ({"class_weights": [1.0, float("nan")]}, "class_weights"),
        ({"reduction": "sum"}, "reduction"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SegmentationLoss(**options)


def test_wrong_shapes(batch):
    labels, logits = batch
    with pytest.raises(ValueError, match="same size"):
        SegmentationLoss()(labels[:, :4], logits)
    with pytest.raises(ValueError, match="2 entries for 5 classes"):
        SegmentationLoss(class_weights=[1, 1])(labels, logits)
