"""This package's side of the benchmarks that compare: `python side_ours.py FOLDER DEVICE`, for `sides.Process`."""

import gc
import os
import shutil
import sys
from pathlib import Path

from sides import (
    CHANNELS,
    CLASSES,
    MASK_BATCH,
    MID_CHANNELS,
    ResidentMemory,
    attention_tensors,
    draw,
    draw_labels,
    draw_pixels,
    features_of,
    work,
)


class Ours:
    def __init__(self, folder, device):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(os.cpu_count())
        if device == "gpu" and not tf.config.get_visible_devices("GPU"):
            sys.exit("TensorFlow sees no GPU; `psanet doctor` says more")
        self.tf = tf
        self.folder = folder
        self.device = device
        self.memory = ResidentMemory() if device == "cpu" else _GpuMemory(tf)
        # What is loaded and set up once is no part of a case's memory.
        import psanet_tf
        import psanet_tf.training.recipe

        psanet_tf.PSALayer(4)(tf.zeros([1, 9, 9, 8]))

    def describe(self):
        tf = self.tf
        if self.device == "cpu":
            return f"TensorFlow {tf.__version__}"
        details = tf.config.experimental.get_device_details(tf.config.get_visible_devices("GPU")[0])
        return f"{details['device_name']}, TensorFlow {tf.__version__}"

    def wait(self):
        self.tf.test.experimental.sync_devices()

    def save(self, outputs, path):
        import numpy as np

        np.save(path, np.asarray(self.tf.cast(outputs, self.tf.float32)))

    def prepare(self, part, **case):
        return getattr(self, part)(**case)

    def psa_mask(self, size, direction, gradient):
        from psanet_tf import psa_mask

        tf = self.tf
        mask = tf.constant(draw(0, MASK_BATCH, size, size, (2 * size - 1) ** 2))
        cotangent = tf.constant(draw(1, MASK_BATCH, size * size, size * size))  # one gather serves both directions
        if not gradient:
            return tf.function(lambda: psa_mask(mask))

        @tf.function
        def differentiate():
            with tf.GradientTape() as tape:
                tape.watch(mask)
                attention = psa_mask(mask)
            return tape.gradient(attention, mask, cotangent)

        return differentiate

    def attention(self, height, width, batch, gradient, block_size, xla=False, dtype="float32"):
        """Both directions of what `PSALayer` computes between its convolutions; for benchmarks/attention.py."""
        from psanet_tf.ops import psa_attention

        tf = self.tf
        block_size = tuple(block_size) if isinstance(block_size, list) else block_size
        tensors = [tf.cast(array, dtype) for array in attention_tensors(height, width, batch)]

        def attend(*tensors):
            halves = []
            for i, direction in enumerate(("collect", "distribute")):
                with tf.control_dependencies(halves):
                    halves.append(psa_attention(*tensors[3 * i : 3 * i + 3], direction, block_size=block_size))
            return tf.concat(halves, axis=-1)

        @tf.function(autograph=False, jit_compile=xla)
        def run(*tensors):
            if not gradient:
                return attend(*tensors)
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                loss = tf.reduce_sum(tf.square(attend(*tensors)))
            return tape.gradient(loss, tensors)

        return lambda: run(*tensors)  # as arguments: XLA would compute with constants while it compiles

    def layer(self, crop, precision):
        from psanet_tf import PSALayer

        tf, (size, _, _) = self.tf, features_of(crop)
        layer = PSALayer(MID_CHANNELS, dtype=policy(precision))
        layer.build((None, size, size, CHANNELS))
        draw_weights(layer)
        self._hand_over(dict(psa_state(layer)), "psa")
        inputs = tf.cast(draw(0, 1, size, size, CHANNELS), layer.compute_dtype)
        return tf.function(lambda: layer(inputs, training=False))

    def network(self, crop, precision, batch):
        tf, model = self.tf, self._model(crop, precision)
        images = tf.constant(draw(0, batch, crop, crop, 3))
        inference = model.inference()
        return tf.function(lambda: inference(images, training=False))

    def export(self, crop, precision, batch):
        """Pixels to probabilities, as TensorFlow Serving would run it."""
        import numpy as np

        from psanet_tf.config import EvaluateSection
        from psanet_tf.data.catalog import dataset_info
        from psanet_tf.export import export_saved_model

        model = self._model(crop, "float32")  # the export casts
        folder = self.folder / "export"
        shutil.rmtree(folder, ignore_errors=True)
        evaluate = EvaluateSection(base_size=crop, flip=False)
        exported = export_saved_model(
            model, folder, dataset_info("ade20k"), evaluate, precision=precision, warm_up=False, device=self.device
        )
        loaded = self.tf.saved_model.load(str(exported.path))
        probabilities = loaded.signatures["probabilities"]
        images = self.tf.constant(draw_pixels(batch, crop).astype(np.uint8))

        self.loaded = loaded  # variables live as long as what was loaded

        def run():
            return probabilities(images=images)["probabilities"]

        return run

    def train(self, crop, precision, batch, steps):
        import numpy as np

        from psanet_tf.config import TrainSection
        from psanet_tf.data.catalog import dataset_info
        from psanet_tf.training.recipe import build_losses, build_optimizer

        model = self._model(crop, precision)
        section = TrainSection(precision=policy(precision))
        model.compile(
            build_optimizer(section, 1000),
            **build_losses(section, dataset_info("ade20k")),
            auto_scale_loss=False,
            jit_compile=False,
        )
        labels = draw_labels(batch, crop).astype(np.uint8)
        step = (draw(0, batch, crop, crop, 3), {"logits": labels, "aux_logits": labels})
        dataset = self.tf.data.Dataset.from_tensors(step).repeat()
        return lambda: model.fit(dataset, steps_per_epoch=steps, shuffle=False, verbose=0).history["logits_loss"]

    def _model(self, crop, precision):
        from psanet_tf import PSANet, semseg_state_dict

        model = PSANet(CLASSES, depth=50, input_shape=(crop, crop, 3), dropout=0.0, dtype=policy(precision))
        self._hand_over(semseg_state_dict(model), "network")
        return model

    def _hand_over(self, state, name):
        """Writes the weights for the other process."""
        import numpy as np

        np.savez(self.folder / f"{name}.npz", **state)


class _GpuMemory:
    """What TensorFlow's allocator has given out, of all that it holds."""

    def __init__(self, tf):
        self._of = tf.config.experimental

    def in_use(self):
        gc.collect()
        return self._of.get_memory_info("GPU:0")["current"]

    def reset_peak(self):
        self._of.reset_memory_stats("GPU:0")

    def peak(self):
        return self._of.get_memory_info("GPU:0")["peak"]


def policy(precision):
    return {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]


def draw_weights(layer):
    """Kernels that leave the attention neither flat nor a single peak."""
    for seed, weight in enumerate(layer.weights):
        if len(weight.shape) == 4:
            weight.assign(draw(seed, *weight.shape) * (2 / weight.shape[2]) ** 0.5)


def psa_state(layer):
    """(the original's name, array) of every weight of its module `PSA`."""
    directions = {"": layer.collect, "_p": layer.distribute}
    pairs = [("proj.0", "proj.1", layer.proj_conv, layer.proj_bn)]
    for suffix, branch in directions.items():
        pairs.append((f"reduce{suffix}.0", f"reduce{suffix}.1", branch.reduce_conv, branch.reduce_bn))
        pairs.append((f"attention{suffix}.0", f"attention{suffix}.1", branch.attention_conv, branch.attention_bn))
        pairs.append((f"attention{suffix}.3", None, branch.mask_conv, None))
    for convolution_name, norm_name, convolution, norm in pairs:
        yield f"{convolution_name}.weight", convolution.kernel.numpy().transpose(3, 2, 0, 1)
        if norm is not None:
            statistics_of = {"running_mean": norm.moving_mean, "running_var": norm.moving_variance}
            for name, weight in {"weight": norm.gamma, "bias": norm.beta, **statistics_of}.items():
                yield f"{norm_name}.{name}", weight.numpy()


if __name__ == "__main__":
    work(Ours(Path(sys.argv[1]), sys.argv[2]))
