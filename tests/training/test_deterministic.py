"""`train.deterministic`: a training step has no operation whose GPU kernel refuses to be deterministic."""

import pytest
import tensorflow as tf

from psanet_tf.training.trainer import build_job

# Those of TensorFlow 2.20 whose GPU kernels answer "determinism is not yet supported", or the like.
REFUSE = {
    "AdjustContrast",
    "AdjustContrastv2",
    "Bincount",
    "CropAndResizeGradBoxes",
    "CropAndResizeGradImage",
    "DebugNumericSummaryV2",
    "DenseBincount",
    "DenseCountSparseOutput",
    "Dilation2DBackpropFilter",
    "Dilation2DBackpropInput",
    "FakeQuantWithMinMaxVarsGradient",
    "FakeQuantWithMinMaxVarsPerChannelGradient",
    "MaxPoolGradWithArgmax",
    "RaggedBincount",
    "ResizeNearestNeighborGrad",
    "SparseTensorDenseMatMul",
}


def operations(config):
    """All operations of a traced training step, those of nested functions included."""
    section = config.train
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    job = build_job(config, strategy)
    height, width = config.data.crop_size
    labels = tf.TensorSpec([section.batch_size, height, width], tf.uint8)
    batch = tf.TensorSpec([section.batch_size, height, width, 3]), {"logits": labels, "aux_logits": labels}
    step = tf.function(lambda batch: strategy.run(job.model.train_step, (batch,))).get_concrete_function(batch)
    graph = step.graph.as_graph_def()
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


@pytest.mark.parametrize(
    "options",
    [("train.class_weights=[1,2,1,1,1,1,1,1,1,1]", "train.ohem_threshold=0.7"), ("model.use_psa=false",)],
    ids=["attention", "frozen"],
)
def test_no_kernel_of_a_training_step_refuses_to_be_deterministic(config, options, monkeypatch):
    config = config(*options, "train.ema_decay=0.9", "train.clip_norm=1", "train.precision=mixed_float16")
    if "model.use_psa=false" in options:
        # The file is read later; here its name is enough.
        config = config.model_copy(
            update={"train": config.train.model_copy(update={"freeze_batch_norm": True, "init": "x.pth"})}
        )
    nodes = operations(config)
    names = {node.op for node in nodes}
    assert {"Conv2DBackpropFilter", "AssignAddVariableOp"} <= names
    assert not names & REFUSE
    frozen_gradients = [
        node for node in nodes if node.op.startswith("FusedBatchNormGrad") and not node.attr["is_training"].b
    ]
    assert not frozen_gradients
