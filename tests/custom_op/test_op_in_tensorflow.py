"""The loaded op: its kernels, its checks, and how it goes with XLA, several devices and Keras."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers import PSALayer
from psanet_tf.models import PSANet
from psanet_tf.ops import op_library, psa_mask_implementation

pytestmark = pytest.mark.extended

ROOT = Path(__file__).parents[2]
DTYPES = ["bfloat16", "float16", "float32", "float64"]


def test_kernels_of_every_dtype_are_registered(library):
    for kernels in op_library.registered_kernels().values():
        found = {device: types for device, types in kernels.items() if device in ("CPU", "GPU")}
        assert found == dict.fromkeys(["CPU", "GPU"], DTYPES)


def test_library_holds_its_kernels_and_needs_no_cuda_library(library):
    assert b"\n.visible .entry PsanetCopyRows8(" in library.path.read_bytes()
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    symbols = subprocess.run(
        ["nm", "-D", str(library.path)], capture_output=True, text=True, check=True, timeout=240
    ).stdout
    assert "PsanetGpuProblem" in symbols
    # TensorFlow's libraries export CUDA functions of their own.
    assert re.findall(r"\b(?:cuda|cu[A-Z])\w*", symbols) == []


def test_library_says_why_there_is_no_gpu(library, monkeypatch):
    if tf.config.list_physical_devices("GPU"):
        assert library.gpu_problem() is None
        return
    assert library.gpu_problem() is None  # TensorFlow sees none that could be a problem
    visible_gpus(monkeypatch, 3)
    assert re.match(r"GPU:3: (there is no NVIDIA driver|cuInit failed|cuDeviceGet failed)", library.gpu_problem())


def visible_gpus(monkeypatch, *ordinals):
    gpus = [types.SimpleNamespace(name=f"/physical_device:GPU:{ordinal}") for ordinal in ordinals]
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: gpus)


def test_every_gpu_that_tensorflow_sees_is_asked(monkeypatch):
    asked = []

    def gpu_problem(ordinal):
        asked.append(ordinal)
        return b"the driver is too old" if ordinal == 5 else None

    monkeypatch.setattr(op_library.ctypes, "CDLL", lambda path: types.SimpleNamespace(PsanetGpuProblem=gpu_problem))
    library = op_library.OpLibrary(Path("op.so"), {}, types.ModuleType("ops"))
    visible_gpus(monkeypatch, 1, 2)
    assert library.gpu_problem() is None
    visible_gpus(monkeypatch, 0, 5, 6)
    assert library.gpu_problem() == "GPU:5: the driver is too old"
    assert asked == [1, 2, 0, 5]


@pytest.mark.parametrize(
    ("shape", "mask_size", "message"),
    [
        ([2, 3, 9], (3, 3), "mask must be .N, H, W, mask_height . mask_width = 3 . 3 = 9., got shape .2,3,9."),
        ([2, 3, 3, 8], (3, 3), "got shape .2,3,3,8."),
        ([2, 3, 3, 8], (2, 3), "mask_width = 2 . 3 = 6., got shape .2,3,3,8."),
        ([0, 1, 1, 1], (65537, 65537), "at most 1073741824 entries"),
        ([0, 65536, 65536, 1], (1, 1), "at most 1073741824 positions"),
    ],
)
def test_kernel_names_what_is_wrong(library, shape, mask_size, message):
    mask_height, mask_width = mask_size
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        library.ops.psa_mask(mask=tf.zeros(shape), mask_height=mask_height, mask_width=mask_width)


@pytest.mark.parametrize(
    ("gradient", "mask_shape", "message"),
    [
        ([2, 9, 8], [2, 3, 3, 9], "gradient must be of shape .2,9,9. for maps of 3 x 3, got shape .2,9,8."),
        ([2, 9, 9], [2, 3, 3, 10], "got shape .2,3,3,10."),
        ([2, 9, 9], [2, 3, 27], "mask_shape must be a vector of 4 numbers, got shape .3."),
        ([2, 9, 9], [-2, 3, 3, 9], "non-negative, got -2"),
    ],
)
def test_gradient_kernel_names_what_is_wrong(library, gradient, mask_shape, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        library.ops.psa_mask_grad(gradient=tf.zeros(gradient), mask_shape=mask_shape, mask_height=3, mask_width=3)


@pytest.mark.parametrize(
    ("shape", "mask_size", "message"),
    [
        ([None, 3, 9], (3, 3), "must be rank 4"),
        ([None, None, None, 8], (3, 3), "3 . 3 = 9 channels, got shape .\\?,\\?,\\?,8."),
        ([None, None, None, 5], (3, 2), "3 . 2 = 6 channels, got shape .\\?,\\?,\\?,5."),
        (None, (65537, 65537), "at most 1073741824 entries"),
    ],
)
def test_shape_function_names_what_is_wrong(library, shape, mask_size, message):
    def function(mask):
        return library.ops.psa_mask(mask=mask, mask_height=mask_size[0], mask_width=mask_size[1])

    with pytest.raises(ValueError, match=message):
        tf.function(function).get_concrete_function(tf.TensorSpec(shape))


def test_shape_of_the_gradient_is_inferred(library):
    @tf.function(input_signature=[tf.TensorSpec([None, 9, 9]), tf.TensorSpec([])])
    def function(gradient, _):
        mask_shape = tf.stack([tf.shape(gradient)[0], 3, 3, 9])
        output = library.ops.psa_mask_grad(gradient=gradient, mask_shape=mask_shape, mask_height=3, mask_width=3)
        assert output.shape.as_list() == [None, 3, 3, 9]
        return output

    function(tf.zeros([2, 9, 9]), 0.0)


@pytest.mark.optimized_graphs
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_compiled_psa_layer_equals_the_layer_with_stock_ops(library, dtype):
    layer = PSALayer(psa_type="bi-direction", mid_channels=4, dtype=dtype)  # collect and distribute
    x = tf.random.stateless_normal([2, 9, 9, 8], [1, 2])
    layer(x)

    def forward_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 2)
        return y, tape.gradient(loss, [x, *layer.trainable_weights])

    def as_float32(tensors):
        return [np.asarray(tf.cast(tensor, tf.float32)) for tensor in tf.nest.flatten(tensors)]

    with psa_mask_implementation("stock"):
        expected = as_float32(forward_and_gradient(x))
    # Sums in another order differ by their rounding, which grows with the largest numbers added, not with the
    # sum: biases' gradients nearly cancel. So all gradients are held against the layer's largest one. Over six seeds
    # they differed by up to 2.6e-7, 4.3e-3 and 5.4e-4 of it, half a unit in the last place of the two short types.
    tolerance = {"float32": 2e-6, "mixed_bfloat16": 1.6e-2, "mixed_float16": 2e-3}[dtype]
    output_scale = np.abs(expected[0]).max()
    gradient_scale = max(np.abs(gradient).max() for gradient in expected[1:])
    scales = [output_scale] + [gradient_scale] * (len(expected) - 1)
    for jit_compile in (False, True):
        function = tf.function(forward_and_gradient, jit_compile=jit_compile)
        found = as_float32(function(x))
        kinds = {node.type for node in function.get_concrete_function(x).graph.get_operations()}
        assert ("PsaMask" in kinds) == (not jit_compile)
        for actual, desired, scale in zip(found, expected, scales, strict=True):
            assert np.abs(actual - desired).max() <= tolerance * scale


SEVERAL_DEVICES = """
    import numpy as np
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    from psanet_tf.keras_api import keras
    from psanet_tf.layers import PSALayer
    from psanet_tf.ops import psa_mask, psa_mask_implementation

    x = tf.random.stateless_normal([2, 3, 5, 45], [1, 2])
    np.testing.assert_array_equal(psa_mask(x), psa_mask(x, implementation="stock"))

    def train(strategy, implementation):
        keras.utils.set_random_seed(1)
        with psa_mask_implementation(implementation), strategy.scope():
            inputs = keras.Input([9, 9, 8])
            outputs = PSALayer(mid_channels=4, synchronized_batch_norm=True)(inputs)
            model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(outputs))
            model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
            rng = np.random.default_rng(2)
            images, targets = rng.normal(size=(8, 9, 9, 8)), rng.normal(size=(8, 9, 9, 3))
            model.fit(images, targets, batch_size=4, epochs=2, shuffle=False, verbose=0)
        return model.get_weights()

    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert two.num_replicas_in_sync == 2
    one = tf.distribute.get_strategy()
    for actual, expected in zip(train(two, "auto"), train(one, "stock"), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    print("done")
"""


def test_two_devices(library):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    code = textwrap.dedent(SEVERAL_DEVICES)
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "done"
    assert "psa_mask uses stock" not in result.stderr
    # The library is looked for while a function is traced.
    assert "AutoGraph" not in result.stderr


def test_saved_model_holds_no_custom_op_where_stock_was_asked_for(library, tmp_path):
    inputs = keras.Input([5, 5, 4])
    model = keras.Model(inputs, PSALayer(mid_channels=4, shrink_factor=1)(inputs))
    signature = [tf.TensorSpec([None, 5, 5, 4])]
    for implementation in ("custom", "stock"):
        module = tf.Module()
        module.model_weights = model.weights
        with psa_mask_implementation(implementation):
            module.serve = tf.function(lambda x: model(x), input_signature=signature)
            tf.saved_model.save(module, str(tmp_path / implementation))
        graph = (tmp_path / implementation / "saved_model.pb").read_bytes()
        assert (b"PsaMask" in graph) == (implementation == "custom")
    x = tf.random.stateless_normal([2, 5, 5, 4], [1, 2])
    for implementation in ("custom", "stock"):
        served = tf.saved_model.load(str(tmp_path / implementation))
        np.testing.assert_allclose(served.serve(x), model(x), rtol=1e-5, atol=1e-6)


def test_psanet_uses_the_op_by_default(library):
    model = PSANet(3, blocks=(1, 1, 1, 1), width=4, input_shape=(65, 65, 3), mid_channels=4)
    function = tf.function(lambda x: model(x)["logits"])
    graph = function.get_concrete_function(tf.TensorSpec([1, 65, 65, 3])).graph
    # Once for each direction.
    assert [node.type for node in graph.get_operations()].count("PsaMask") == 2


def operations(function, spec):
    """Names of the operations of a function's graph."""
    graph = tf.function(function).get_concrete_function(spec).graph
    return [node.type for node in graph.get_operations()]


@pytest.mark.parametrize("implementation", ["custom", "stock"])
def test_layer_and_network_use_the_implementation_that_they_are_given_and_keep_it(library, implementation):
    layer = PSALayer(mid_channels=4, implementation=implementation)
    model = PSANet(
        3, blocks=(1, 1, 1, 1), width=4, input_shape=(17, 17, 3), mid_channels=4, implementation=implementation
    )
    found = operations(lambda x: layer(x), tf.TensorSpec([1, 5, 5, 8])).count("PsaMask")
    assert found == (2 if implementation == "custom" else 0)
    for restored in (
        model.get_layer("psa"),
        PSALayer.from_config(layer.get_config()),
        keras.models.clone_model(keras.Sequential([keras.Input([5, 5, 8]), layer])).layers[-1],
        PSANet.from_config(model.get_config()).get_layer("psa"),
    ):
        assert restored.implementation == implementation
    assert model.inference().get_layer("psa") is model.get_layer("psa")
    with psa_mask_implementation("stock"):
        assert "PsaMask" not in operations(lambda x: layer(x), tf.TensorSpec([1, 5, 5, 8]))


@pytest.mark.parametrize("make", [PSALayer, lambda **arguments: PSANet(3, use_psa=False, **arguments)])
def test_unknown_implementation_is_named_when_the_layer_is_made(make):
    with pytest.raises(ValueError, match="implementation must be one of 'auto', 'custom', 'stock', got 'fast'"):
        make(implementation="fast")
