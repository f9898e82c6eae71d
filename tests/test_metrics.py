"""Scores against the original's numbers, and the Keras metric against the scores."""

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import metrics
from psanet_tf.keras_api import keras
from psanet_tf.metrics import MeanIoU, confusion_matrix, scores_from_confusion, segmentation_scores


def test_golden(golden):
    arrays, meta = golden("metrics")
    scores = segmentation_scores(arrays["prediction"], arrays["label"], meta["classes"])
    np.testing.assert_allclose(scores.iou, arrays["iou"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores.accuracy, arrays["accuracy"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        [scores.miou, scores.macc, scores.allacc], [meta["mIoU"], meta["mAcc"], meta["allAcc"]], rtol=0, atol=1e-12
    )


def test_confusion_matrices_of_images_add_up(golden):
    arrays, meta = golden("metrics")
    parts = [
        confusion_matrix(p, t, meta["classes"]) for p, t in zip(arrays["prediction"], arrays["label"], strict=True)
    ]
    whole = confusion_matrix(arrays["prediction"], arrays["label"], meta["classes"])
    np.testing.assert_array_equal(sum(parts), whole)
    assert whole.sum() == np.count_nonzero(arrays["label"] != 255)


def test_blocks_add_up(golden, monkeypatch):
    arrays, meta = golden("metrics")
    whole = confusion_matrix(arrays["prediction"], arrays["label"], meta["classes"])
    monkeypatch.setattr("psanet_tf.metrics._BLOCK", 1000)
    np.testing.assert_array_equal(confusion_matrix(arrays["prediction"], arrays["label"], meta["classes"]), whole)


def test_confusion_rows_are_truth():
    np.testing.assert_array_equal(confusion_matrix([1, 1, 2], [0, 1, 255], 2), [[0, 1], [0, 1]])


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "one shape"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "predictions must be integers"),
        (np.full((2, 2), 3), np.zeros((2, 2), int), "predictions hold 3"),
        (np.zeros((2, 2), int), np.full((2, 2), 7), "labels hold 7"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "labels hold -1"),
    ],
)
def test_impossible_label_maps_are_refused(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(predictions, labels, 3)


def test_confusion_must_be_square():
    with pytest.raises(ValueError, match="square"):
        scores_from_confusion(np.zeros((2, 3)))


def _logits_and_labels(seed=0, batch=4, size=9, classes=3):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(batch, size, size, classes)).astype("float32")
    labels = generator.integers(0, classes, (batch, size, size)).astype("uint8")
    # Unevenly ignored, so that a mean of per-replica scores would differ from the score of all pixels.
    labels[0, :8] = 255
    labels[1, :3] = 255
    return logits, labels


def test_metric_equals_scores_over_several_updates():
    metric = MeanIoU(3)
    logits, labels = _logits_and_labels()
    metric.update_state(labels[:1], logits[:1])
    metric.update_state(labels[1:], logits[1:])
    expected = segmentation_scores(logits.argmax(-1), labels, 3).miou
    assert float(metric.result()) == pytest.approx(expected, abs=1e-7)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_metric_counts_in_blocks(monkeypatch):
    monkeypatch.setattr(metrics, "_PIXELS", 50)
    metric = MeanIoU(3, ignore_label=1)
    logits, labels = _logits_and_labels()
    labels[labels == 255] = 1
    metric.update_state(labels, logits)
    expected = confusion_matrix(logits.argmax(-1), labels, 3, ignore_label=1)
    np.testing.assert_array_equal(metric.confusion.numpy(), expected)
    assert expected.sum() == np.sum(labels != 1)


def test_metric_compiles_under_xla():
    metric = MeanIoU(3)
    logits, labels = _logits_and_labels(1)
    tf.function(metric.update_state, jit_compile=True)(tf.constant(labels), tf.constant(logits))
    expected = segmentation_scores(logits.argmax(-1), labels, 3).miou
    assert float(metric.result()) == pytest.approx(expected, abs=1e-7)


def test_metric_refuses_unknown_labels_and_sample_weight():
    logits, labels = _logits_and_labels(2)
    labels[2, 0, 0] = 3
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be 0 to 2 or 255"):
        MeanIoU(3).update_state(labels, logits)
    for kind in ("uint8", "int32"):
        metric = MeanIoU(3)
        tf.function(metric.update_state)(tf.constant(labels.astype(kind)), tf.constant(logits))
        assert np.isnan(metric.result())
    with pytest.raises(ValueError, match="sample_weight"):
        MeanIoU(3).update_state(labels, logits, sample_weight=tf.ones([4]))
    with pytest.raises(ValueError, match="num_classes"):
        MeanIoU(0)


def test_metric_round_trips_through_its_config():
    metric = keras.metrics.deserialize(keras.metrics.serialize(MeanIoU(5, ignore_label=9, name="m")))
    assert (metric.num_classes, metric.ignore_label, metric.name) == (5, 9, "m")


def test_metric_under_mirrored_strategy_counts_all_pixels(two_replicas):
    logits, labels = _logits_and_labels(3)
    with two_replicas.scope():
        inputs = keras.Input((9, 9, 3))
        model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
        model.compile(loss=lambda y, p: tf.reduce_mean(p, axis=[1, 2, 3]), metrics=[MeanIoU(3)])
    dataset = tf.data.Dataset.from_tensor_slices((logits, labels)).batch(2)
    result = model.evaluate(dataset, return_dict=True, verbose=0)["miou"]
    assert result == pytest.approx(segmentation_scores(logits.argmax(-1), labels, 3).miou, abs=1e-7)
