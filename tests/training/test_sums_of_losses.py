"""Focal, Dice and Lovász-softmax losses and their sums against slow NumPy, on one device and on two replicas."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.config import TrainSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.keras_api import keras
from psanet_tf.losses import DiceLoss, FocalLoss, LovaszSoftmaxLoss, SegmentationLoss, WeightedSum
from psanet_tf.training.recipe import build_losses

CLASSES = 5
WEIGHTS = [1.0, 0.0, 2.0, 0.5, 3.0]


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def labelled(labels, logits):
    """[(label, probabilities)] of the pixels that count."""
    probabilities = softmax(logits)
    return [(labels[index], probabilities[index]) for index in np.ndindex(labels.shape) if labels[index] != 255]


def focal_reference(labels, logits, gamma=2.0, class_weights=None):
    class_weights = np.ones(CLASSES) if class_weights is None else class_weights
    pixels = labelled(labels, logits)
    total = sum(class_weights[label] * -((1 - p[label]) ** gamma) * np.log(p[label]) for label, p in pixels)
    return total / sum(class_weights[label] for label, _ in pixels)


def dice_reference(labels, logits):
    pixels, losses = labelled(labels, logits), []
    for index in range(CLASSES):
        overlap = sum(p[index] for label, p in pixels if label == index)
        sizes = sum(p[index] + (label == index) for label, p in pixels)
        if any(label == index for label, _ in pixels):
            losses.append(1 - 2 * overlap / sizes)
    return np.mean(losses)


def lovasz_reference(labels, logits):
    """The Lovász extension by its definition: what the Jaccard loss gains with each pixel, the most wrong first."""
    pixels, losses = labelled(labels, logits), []
    for index in range(CLASSES):
        true = {place for place, (label, _) in enumerate(pixels) if label == index}
        if not true:
            continue
        errors = [abs((label == index) - p[index]) for label, p in pixels]
        wrong, before, loss = set(), 0.0, 0.0
        for place in sorted(range(len(pixels)), key=lambda place: -errors[place]):
            wrong.add(place)
            jaccard = 1 - len(true - wrong) / len(true | wrong)
            loss += errors[place] * (jaccard - before)
            before = jaccard
        losses.append(loss)
    return np.mean(losses)


LOSSES = {
    "focal": (FocalLoss(), focal_reference),
    "dice": (DiceLoss(), dice_reference),
    "lovasz": (LovaszSoftmaxLoss(), lovasz_reference),
}


@pytest.fixture
def batch():
    """Four images; class 4 is nowhere, and nearly all of the first two images is ignored."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, CLASSES - 1, (4, 6, 7)).astype(np.uint8)
    labels[0, :4] = 255
    labels[1, 1:] = 255
    labels[3, :, 2] = 255
    return labels, rng.normal(size=(4, 6, 7, CLASSES)).astype(np.float32) * 3


@pytest.mark.parametrize("name", LOSSES)
def test_equals_reference(batch, name):
    loss, reference = LOSSES[name]
    assert float(loss(*batch)) == pytest.approx(reference(*batch), rel=1e-5)
    # What is ignored counts nowhere, and the loss falls as logits come nearer to the labels.
    labels, logits = batch
    changed = np.where((labels == 255)[..., None], 7.0 * np.arange(CLASSES), logits).astype(np.float32)
    assert float(loss(labels, changed)) == pytest.approx(float(loss(labels, logits)), rel=1e-6)
    right = 50 * np.eye(CLASSES, dtype=np.float32)[np.where(labels == 255, 0, labels)]
    assert float(loss(labels, right)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_small_differences(batch, name):
    loss = LOSSES[name][0]
    labels, logits = batch[0], batch[1].astype(np.float64)
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_mean(tf.broadcast_to(loss.call(tf.constant(labels), x), labels.shape))
    gradient = tape.gradient(value, x).numpy()
    for index in [(0, 5, 3, 1), (2, 0, 0, 0), (2, 4, 5, 4), (3, 2, 1, 2), (0, 0, 0, 0)]:
        step = np.zeros_like(logits)
        step[index] = 1e-6
        both = [float(tf.reduce_mean(loss.call(tf.constant(labels), tf.constant(logits + s)))) for s in (step, -step)]
        assert gradient[index] == pytest.approx((both[0] - both[1]) / 2e-6, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_focal_loss_of_any_gamma_and_weights(batch, gamma):
    labels, logits = batch
    loss = FocalLoss(gamma, class_weights=WEIGHTS)
    assert float(loss(labels, logits)) == pytest.approx(focal_reference(labels, logits, gamma, WEIGHTS), rel=1e-5)
    if gamma == 0:
        entropy = SegmentationLoss(class_weights=WEIGHTS)(labels, logits)
        assert float(loss(labels, logits)) == pytest.approx(float(entropy), rel=1e-6)
    # A probability that rounds to 1 has no gradient, whatever the power.
    logits = tf.Variable(np.full((1, 1, 1, CLASSES), [200.0, 0, 0, 0, 0], np.float32))
    with tf.GradientTape() as tape:
        value = loss(np.zeros((1, 1, 1), np.uint8), logits)
    np.testing.assert_allclose(tape.gradient(value, logits), 0, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_everything_ignored_is_zero_with_zero_gradient(name):
    logits = tf.Variable(np.ones((2, 3, 3, 4), np.float32))
    with tf.GradientTape() as tape:
        loss = LOSSES[name][0](np.full((2, 3, 3), 255, np.uint8), logits)
    assert float(loss) == 0
    np.testing.assert_array_equal(tape.gradient(loss, logits), 0)


def value_and_gradient(loss, labels, logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(labels, logits)
    return value, tape.gradient(value, logits)


def on_replicas(strategy, loss, batch):
    """The sum of what the replicas have, and the gradients of the whole batch."""
    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(len(batch[0]))
    distributed = next(iter(strategy.experimental_distribute_dataset(dataset)))
    step = tf.function(lambda each: strategy.run(lambda *pair: value_and_gradient(loss, *pair), each), autograph=False)
    values, gradients = step(distributed)
    parts = [part.numpy() for part in strategy.experimental_local_results(gradients)]
    return float(strategy.reduce("SUM", values, axis=None)), np.concatenate(parts)


@pytest.mark.parametrize("name", ["focal", "dice", "sum"])
def test_two_replicas_with_uneven_labels_equal_one_device(batch, two_replicas, name):
    losses = {
        "focal": FocalLoss(class_weights=WEIGHTS),
        "dice": DiceLoss(),
        "sum": WeightedSum([SegmentationLoss(), DiceLoss()], [1.0, 0.5]),
    }
    expected, gradient = value_and_gradient(losses[name], *map(tf.constant, batch))
    value, both = on_replicas(two_replicas, losses[name], batch)
    assert value == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(both, gradient, atol=1e-8)


def test_lovasz_of_two_replicas_is_the_mean_of_theirs_by_labelled_pixels(batch, two_replicas):
    labels, logits = batch
    halves = [(labels[half], logits[half]) for half in (slice(0, 2), slice(2, 4))]
    counts = np.array([np.sum(half[0] != 255) for half in halves])
    shares = counts / counts.sum()
    each = [value_and_gradient(LovaszSoftmaxLoss(), *map(tf.constant, half)) for half in halves]
    value, gradients = on_replicas(two_replicas, LovaszSoftmaxLoss(), batch)
    assert value == pytest.approx(
        sum(share * float(part[0]) for share, part in zip(shares, each, strict=True)), rel=1e-6
    )
    expected = [share * part[1].numpy() for share, part in zip(shares, each, strict=True)]
    np.testing.assert_allclose(gradients, np.concatenate(expected), atol=1e-8)


@pytest.mark.parametrize("name", ["entropy", *LOSSES])
@pytest.mark.parametrize("wrong", [CLASSES, -1, 254])
def test_labels_that_are_no_class_are_refused_by_all(batch, two_replicas, name, wrong):
    loss = SegmentationLoss() if name == "entropy" else LOSSES[name][0]
    labels, logits = batch[0].astype(np.int32), batch[1]
    labels[3, 2, 3] = wrong
    smallest = min(wrong, 0)
    message = rf"labels must be 0 to {CLASSES - 1} or 255; they go from {smallest} to 255"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loss(labels, logits)
    if name in ("entropy", "focal"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"label value of {wrong} which is outside the valid"):
            on_replicas(two_replicas, loss, (labels, logits))
    else:
        assert np.isnan(on_replicas(two_replicas, loss, (labels, logits))[0])


@pytest.mark.parametrize("name", LOSSES)
def test_xla_computes_the_same(batch, name):
    step = tf.function(lambda *pair: value_and_gradient(LOSSES[name][0], *pair), jit_compile=True, autograph=False)
    expected = value_and_gradient(LOSSES[name][0], *map(tf.constant, batch))
    for got, wanted in zip(step(*map(tf.constant, batch)), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-8)


def test_a_sum_is_what_its_losses_are(batch):
    loss = WeightedSum([SegmentationLoss(label_smoothing=0.1), DiceLoss(), LovaszSoftmaxLoss()], [2, 0.5, 0.25])
    parts = [float(part(*batch)) for part in loss.losses]
    assert float(loss(*batch)) == pytest.approx(2 * parts[0] + 0.5 * parts[1] + 0.25 * parts[2], rel=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    assert float(again(*batch)) == float(loss(*batch))


def test_the_losses_of_a_configuration():
    info = DatasetInfo("test", tuple("abcde"), np.zeros((CLASSES, 3), np.uint8), ignore_label=254)
    plain = build_losses(TrainSection(), info)["loss"]
    assert type(plain["logits"]) is type(plain["aux_logits"]) is SegmentationLoss
    section = TrainSection(
        loss={"dice": 0.5, "focal": 2.0, "lovasz_softmax": 1.0}, focal_gamma=3.0, class_weights=tuple(WEIGHTS)
    )
    loss = build_losses(section, info, aux_head=False)["loss"]
    assert [type(part) for part in loss.losses] == [DiceLoss, FocalLoss, LovaszSoftmaxLoss]
    assert loss.weights == [0.5, 2.0, 1.0]
    assert {part.ignore_label for part in loss.losses} == {254}
    assert (loss.losses[1].gamma, loss.losses[1].class_weights) == (3.0, WEIGHTS)
    assert type(build_losses(TrainSection(loss={"dice": 1.0}), info, aux_head=False)["loss"]) is DiceLoss


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FocalLoss(-1.0), "gamma must be 0 or more, got -1.0"),
        (lambda: FocalLoss(float("nan")), "gamma must be 0 or more, got nan"),
        (lambda: FocalLoss(class_weights=[-1.0]), "class_weights must be finite, not negative"),
        (lambda: DiceLoss(reduction="sum"), "reduction must be 'sum_over_batch_size'"),
        (lambda: WeightedSum([DiceLoss()], [1.0], reduction="sum"), "reduction must be 'sum_over_batch_size'"),
        (lambda: WeightedSum([], []), "losses of psanet_tf.losses, at least one"),
        (lambda: WeightedSum([keras.losses.MeanSquaredError()], [1.0]), "losses of psanet_tf.losses"),
        (lambda: WeightedSum([DiceLoss()], [1.0, 2.0]), r"1 positive numbers, one per loss, got \[1.0, 2.0\]"),
        (lambda: WeightedSum([DiceLoss()], [0.0]), "1 positive numbers"),
        (lambda: LovaszSoftmaxLoss()(np.zeros((1, 2, 2)), np.zeros((1, 2, 3, 4))), "of the same size"),
        (
            lambda: FocalLoss(class_weights=[1, 1])(np.zeros((1, 2, 2)), np.zeros((1, 2, 2, 4))),
            "2 entries for 4 classes",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
