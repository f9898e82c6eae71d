"""The lines between epochs: what they say, and how much arithmetic there is."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf import PSANet
from psanet_tf.config import TrainSection
from psanet_tf.files import NoSpaceError
from psanet_tf.training.flops import Peak, measure_peak, training_flops
from psanet_tf.training.run_log import RunLog
from psanet_tf.training.step_log import StepLog, duration

STEPS = 6  # of an epoch


class Run:
    """Calls a StepLog as `fit` does; a step takes two seconds, the first of an epoch 100, what follows an epoch 50."""

    def __init__(self, tmp_path, monkeypatch, **options):
        self.now = self.training_seconds = 0.0
        self.position = SimpleNamespace(step=0)
        self.section = TrainSection(epochs=3, batch_size=4)
        self.steps_per_epoch = STEPS
        self.curves, self.asked = [], 0
        monkeypatch.setattr("psanet_tf.training.step_log.time", SimpleNamespace(monotonic=lambda: self.now))
        self.log = StepLog(
            RunLog(tmp_path / "train.log"),
            4,
            self,
            flops=10**9,
            find_peak=self.find_peak,
            write_curves=lambda step, values: self.curves.append((step, values)),
        )
        optimizer = SimpleNamespace(learning_rate=0.01, factors=[10.0, 1.0], gradient_norm=tf.constant(2.5))
        self.log.set_model(SimpleNamespace(optimizer=optimizer))

    def find_peak(self):
        self.asked += 1
        return Peak(8e9, "guessed")

    def epoch(self, number, losses, first=0):
        """`losses` of all its steps; those before `first` are of an earlier start of the run."""
        self.position.step = first
        self.training_seconds = 0.0
        self.log.on_epoch_begin(number)
        for batch, step in enumerate(range(first, STEPS)):
            seconds = 2.0 if batch else 100.0
            self.training_seconds += seconds
            self.now += seconds
            self.log.on_train_batch_end(batch, {"loss": np.mean(losses[: step + 1])})
        self.log.on_epoch_end(number, {"loss": np.mean(losses)})
        self.now += 50


def test_lines_and_curves(tmp_path, monkeypatch, capsys):
    run = Run(tmp_path, monkeypatch)
    losses = np.arange(18.0)
    for number in range(3):
        run.epoch(number, losses[6 * number : 6 * number + 6])
    peak, *lines = capsys.readouterr().err.splitlines()
    assert peak == "peak of the machine: 0.008 TFLOP/s, guessed; a training step is 1 GFLOP per image"
    assert len(lines) == 4 and run.asked == 1
    # The mean of the losses of four steps, across the end of an epoch too.
    for index, line in enumerate(lines):
        assert f"loss {np.mean(losses[4 * index : 4 * index + 4]):.4f}" in line
    # 14 steps of 2 s, and 3 ends of epochs, of which no length is known yet.
    assert lines[0] == (
        "step 4/18, 4/6 of epoch 1  loss 1.5000  learning rates 0.01, 0.1  gradient norm 2.5  2.0 images/s  "
        "about 28 s left  25.0 % of the peak"
    )
    # 10 steps, and 2 ends of epochs of 50 s.
    assert lines[1].startswith("step 8/18, 2/6 of epoch 2  ") and "about 2 min left" in lines[1]
    assert [line.split(" ", 1)[1] for line in (tmp_path / "train.log").read_text().splitlines()] == [peak, *lines]
    assert [step for step, _ in run.curves] == [4, 8, 12, 16]
    assert run.curves[0][1] == pytest.approx(
        {"loss": 1.5, "gradient_norm": 2.5, "learning_rate": 0.01, "images_per_second": 2.0, "share_of_peak": 0.25}
    )


def test_a_run_that_goes_on_within_an_epoch(tmp_path, monkeypatch, capsys):
    run = Run(tmp_path, monkeypatch)
    # Step 4 is the first: what it took and what the loss was before it are not known.
    run.epoch(0, np.arange(6.0), first=3)
    run.epoch(1, np.arange(6.0, 12))
    (first, _, second, _) = capsys.readouterr().err.splitlines()
    assert first == "step 4/18, 4/6 of epoch 1  loss 1.5000  learning rates 0.01, 0.1  gradient norm 2.5"
    assert "loss 5.5000" in second and "2.0 images/s" in second


def test_a_log_without_room(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(NoSpaceError, match="no space left to write .*train.log"):
        RunLog(tmp_path / "train.log").say("epoch 1")


@pytest.mark.parametrize(("seconds", "words"), [(7501, "2 h 05 min"), (150, "2 min"), (29.6, "30 s")])
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_arithmetic_of_a_step_is_that_of_the_graph():
    """Three times what convolutions and matrix products of the forward pass come to."""
    # At 8 x 8 features TensorFlow pads no dilated convolution.
    model = PSANet(3, input_shape=(57, 57, 3), blocks=(1, 1, 1, 1), width=4, dropout=0.0)
    call = tf.function(lambda images: model(images, training=True), autograph=False)
    total = 0
    for operation in call.get_concrete_function(tf.TensorSpec([1, 57, 57, 3])).graph.get_operations():
        if operation.type == "Conv2D":
            kernel = operation.inputs[1].shape
            total += 2 * operation.outputs[0].shape.num_elements() * kernel[:3].num_elements()
        elif operation.type == "BatchMatMulV2":
            inner = operation.inputs[0].shape[-2 if operation.get_attr("adj_x") else -1]
            total += 2 * operation.outputs[0].shape.num_elements() * inner
    assert training_flops(model) == 3 * total
    frozen = model.get_layer("layer1_0_conv1")
    frozen.trainable = False
    forward = 2 * np.prod(frozen.output.shape[1:3]) * np.prod(frozen.kernel.shape)
    assert training_flops(model) == 3 * total - 2 * forward


def test_the_peak_is_measured():
    peak = measure_peak("float32", devices=2)
    assert peak.flops > 0
    assert "matrices in float32 on one of 2 " in peak.origin
