"""What a training step would run on a GPU, by the kernels that TensorFlow has there."""

import functools
import math

import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_registry

from psanet_tf.config import load_config
from psanet_tf.training.job import build_job
from psanet_tf.training.strategy import build_strategy

BATCH_SIZE = 4

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


ALL = ("train.ema_decay=0.9", "train.clip_norm=1", "train.jit_compile=true")
STEPS = {
    "float16, all of the loss": (
        *ALL,
        "train.precision=mixed_float16",
        "train.loss={cross_entropy: 1, focal: 1, dice: 1, lovasz_softmax: 1}",
        "train.class_weights=[1,2,1,1,1,1,1,1,1,1]",
        "train.label_smoothing=0.1",
        "train.ohem_threshold=0.7",
        "train.accumulation_steps=2",
    ),
    "bfloat16": (*ALL, "train.precision=mixed_bfloat16"),
    "frozen": (*ALL, "model.use_psa=false", "train.tensor_float_32=false"),
}


@pytest.fixture(scope="module", params=list(STEPS))
def graphs(request, config_file):
    """The graph of a training step on one device and its nested functions, each a list of nodes with shapes."""
    config = load_config(config_file, STEPS[request.param])
    if request.param == "frozen":
        # The file is read later; here its name is enough.
        frozen = config.train.model_copy(update={"freeze_batch_norm": True, "init": "x.pth"})
        config = config.model_copy(update={"train": frozen})
    strategy = build_strategy(config.train)
    job = build_job(config, strategy)
    assert job.model.jit_compile is True
    assert tf.config.experimental.tensor_float_32_execution_enabled() == config.train.tensor_float_32
    height, width = config.data.crop_size
    labels = tf.TensorSpec([BATCH_SIZE, height, width], tf.uint8)
    batch = tf.TensorSpec([BATCH_SIZE, height, width, 3]), {"logits": labels, "aux_logits": labels}
    step = tf.function(lambda batch: strategy.run(job.model.train_step, (batch,)), autograph=False)
    graph = step.get_concrete_function(batch).graph.as_graph_def(add_shapes=True)
    nodes = [list(graph.node), *(list(function.node_def) for function in graph.library.function)]
    names = {node.op for function in nodes for node in function}
    assert {"Conv2DBackpropFilter", "AssignAddVariableOp", "OneHot", "SparseSoftmaxCrossEntropyWithLogits"} <= names
    return nodes


def test_no_kernel_of_a_training_step_refuses_to_be_deterministic(graphs):
    nodes = [node for function in graphs for node in function]
    assert not {node.op for node in nodes} & REFUSE
    frozen_gradients = [
        node for node in nodes if node.op.startswith("FusedBatchNormGrad") and not node.attr["is_training"].b
    ]
    assert not frozen_gradients


def test_every_operation_of_a_training_step_has_a_kernel_on_gpus_and_none_takes_labels_to_the_host(graphs):
    if not any(kernel.device_type == "GPU" for kernel in kernels_of("Conv2D")):
        pytest.skip("this build of TensorFlow does not know GPUs")
    pixels = 33 * 33
    for nodes in graphs:
        sizes = {node.name: largest_output(node) for node in nodes}
        for node in nodes:
            kernel = gpu_kernel(node)
            assert kernel is not None, f"{node.op} has no GPU kernel: {node}"
            for names, on_host in tensors_on_host(node, kernel):
                large = [name for name in names if sizes.get(name, 0) >= pixels]
                assert not (on_host and large), f"{node.op} works in the host's memory: {node}"


@functools.cache
def kernels_of(op):
    return kernels.get_registered_kernels_for_op(op).kernel


def gpu_kernel(node):
    """The kernel that TensorFlow takes on a GPU, None if there is none."""
    fitting = [
        kernel
        for kernel in kernels_of(node.op)
        if kernel.device_type in ("GPU", "DEFAULT")
        and all(node.attr[c.name].type in c.allowed_values.list.type for c in kernel.constraint)
    ]
    return max(fitting, key=lambda kernel: (kernel.device_type == "GPU", kernel.priority), default=None)


def tensors_on_host(node, kernel):
    """Pairs (names of nodes whose outputs these are, whether they must be in the host's memory)."""
    definition = op_def_registry.get(node.op)
    for argument in definition.output_arg:
        yield [node.name], argument.name in kernel.host_memory_arg
    inputs = [name.split(":")[0] for name in node.input if not name.startswith("^")]
    lists = [argument for argument in definition.input_arg if argument.number_attr or argument.type_list_attr]
    if not lists:
        for argument, name in zip(definition.input_arg, inputs, strict=True):
            yield [name], argument.name in kernel.host_memory_arg
    else:
        # Which of the inputs are the list's does not matter where all are of one kind.
        yield inputs, all(argument.name in kernel.host_memory_arg for argument in definition.input_arg)


def largest_output(node):
    shapes = node.attr["_output_shapes"].list.shape
    return max((math.prod(max(d.size, 1) for d in shape.dim) for shape in shapes), default=0)
