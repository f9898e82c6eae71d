"""What Keras and TensorFlow write of models with a PSALayer: stock ops, which any program can load."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.keras_api import LEGACY_KERAS, keras
from psanet_tf.layers import PSALayer
from psanet_tf.models import PSANet
from psanet_tf.ops import psa_mask_implementation

pytestmark = pytest.mark.usefixtures("library")

SPEC = tf.TensorSpec([None, 9, 9, 3])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).normal(size=(2, 9, 9, 3)).astype("float32")


@pytest.fixture(scope="module")
def model(images):
    """A network of one's own around the layer, after training and prediction, which traced it with the op."""
    inputs = keras.Input([9, 9, 3])
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1)(PSALayer(mid_channels=4, psa_type="collect")(inputs)))
    model.compile("sgd", "mse")
    model.fit(images, np.ones([2, 9, 9, 2]), verbose=0)
    model.predict(images, verbose=0)
    return model


def serving_function(model):
    return tf.function(lambda images: model(images), autograph=False)


def module_of(model):
    module = tf.Module()
    module.model_weights = model.weights
    return module


def by_model_export(model, folder):
    model.export(folder)


def by_archive(model, folder):
    """An endpoint that has run, and was traced, before."""
    function = serving_function(model)
    function(tf.zeros([2, 9, 9, 3]))
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", function)
    archive.write_out(folder)


def by_module(model, folder):
    module = module_of(model)
    module.serve = tf.function(lambda images: model(images), input_signature=[SPEC], autograph=False)
    module.serve(tf.zeros([2, 9, 9, 3]))
    tf.saved_model.save(module, folder)


def by_loop(model, folder):
    """The layer in the body of a loop, a graph within the graph."""
    module = module_of(model)

    def serve(images):
        return tf.map_fn(lambda image: model(image[None])[0], images)

    module.serve = tf.function(serve, input_signature=[SPEC], autograph=False)
    module.serve(tf.zeros([2, 9, 9, 3]))
    tf.saved_model.save(module, folder)


READER = """
import sys
import numpy as np
import tensorflow as tf
numbers = np.load(sys.argv[1] + "/numbers.npz")
for name in numbers["names"]:
    served = tf.saved_model.load(f"{sys.argv[1]}/{name}")
    found = served.serve(numbers["images"])
    found = found["logits"] if isinstance(found, dict) else found
    np.testing.assert_allclose(found, numbers[f"{name}_outputs"], rtol=1e-4, atol=1e-6, err_msg=name)
assert "psanet_tf" not in sys.modules
"""


@pytest.mark.extended
def test_exports_are_read_without_this_package_and_give_the_same_numbers(model, images, tmp_path):
    expected = {}
    # The writers of legacy Keras are its own, TensorFlow's are the same.
    for write in (by_archive,) if LEGACY_KERAS else (by_model_export, by_archive, by_module, by_loop):
        write(model, str(tmp_path / write.__name__))
        expected[write.__name__] = model(images)
    if not LEGACY_KERAS:
        psanet = PSANet(3, blocks=(1, 1, 1, 1), width=4, input_shape=(9, 9, 3), mid_channels=4, psa_type="collect")
        by_model_export(psanet, str(tmp_path / "psanet"))
        expected["psanet"] = psanet(images)["logits"]
    for name in expected:
        assert b"PsaMask" not in (tmp_path / name / "saved_model.pb").read_bytes(), name
    outputs = {f"{name}_outputs": output for name, output in expected.items()}
    np.savez(tmp_path / "numbers.npz", names=list(expected), images=images, **outputs)
    command = [sys.executable, "-c", READER, str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr


@pytest.mark.any_keras
def test_model_trained_on_two_replicas_is_exported_with_stock_ops(two_replicas, tmp_path):
    with two_replicas.scope():
        inputs = keras.Input([9, 9, 3])
        model = keras.Model(inputs, PSALayer(mid_channels=4, psa_type="collect")(inputs))
        model.compile("sgd", "mse")
    model.fit(np.zeros([4, 9, 9, 3]), np.ones([4, 9, 9, 6]), batch_size=4, verbose=0)
    model.export(str(tmp_path / "model"))
    assert b"PsaMask" not in (tmp_path / "model" / "saved_model.pb").read_bytes()


@pytest.mark.parametrize("write", [tf.saved_model.save, lambda model, folder: model.save(folder)], ids=["tf", "keras"])
def test_whole_models_of_legacy_keras_hold_stock_ops(model, tmp_path, write):
    if not LEGACY_KERAS:
        pytest.skip("Keras 3 writes whole models to .keras files only, which hold no graph")
    write(model, str(tmp_path / "model"))
    assert b"PsaMask" not in (tmp_path / "model" / "saved_model.pb").read_bytes()


@pytest.mark.any_keras
def test_export_converts_to_tflite(model, images, tmp_path):
    model.export(str(tmp_path / "model"))
    content = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "model")).convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], images)
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(answer["index"]), model(images), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("in_loop", [False, True], ids=["plain", "in a loop"])
def test_concrete_function_that_holds_the_op_is_not_exported_without_a_word(model, tmp_path, in_loop):
    def serve(images):
        return tf.map_fn(lambda image: model(image[None])[0], images) if in_loop else model(images)

    module = module_of(model)
    signature = tf.function(serve, autograph=False).get_concrete_function(SPEC)
    with pytest.raises(ValueError, match=r"holds the compiled op PsaMask.*psa_mask_implementation\(\"stock\"\)"):
        tf.saved_model.save(module, str(tmp_path / "auto"), signatures=signature)


def test_op_is_exported_where_it_is_asked_for(model, tmp_path):
    with psa_mask_implementation("custom"):
        model.export(str(tmp_path / "model"))
    assert b"PsaMask" in (tmp_path / "model" / "saved_model.pb").read_bytes()
