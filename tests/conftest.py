"""Fixtures that every part of the suite shares."""

import gc
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What XLA compiles in a test runs once or twice: LLVM's optimizations take longer than they save.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.util import tf_stack

from psanet_tf.keras_api import keras

# Two devices on every machine, before anything starts TensorFlow's runtime: tests of replicas need them.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# Graphs and networks are made of very many objects that stay: by default Python looks for garbage among them so often
# that a twentieth of the time goes into it.
gc.set_threshold(20_000, 10, 10)

# Nor does every operation of a graph remember where in Python it was made, which TensorFlow prints beside its own
# errors: to look it up takes a tenth of the time of making a graph.
_SOMEWHERE = tf_stack.extract_stack()
tf_stack.extract_stack = lambda *arguments, **keywords: _SOMEWHERE

GOLDEN = Path(__file__).parent / "golden"
SEED = 20180908


def pytest_collection_modifyitems(config, items):
    """tf_keras gets what depends on Keras. The rest (the ops, more sizes and depths) would only be run twice.

    What takes longest comes first, so that no process has to wait for the other one at the end.
    """
    items.sort(key=lambda item: "tests/training/" not in item.nodeid)
    if keras.__name__ == "tf_keras":
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("any_keras")])
        items[:] = [item for item in items if not item.get_closest_marker("any_keras")]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Graphs run as they were traced, but in tests that are marked `optimized_graphs`: there, as users run them.

    Improving a graph takes TensorFlow longer than the graphs of most tests run. It is settled before the test's
    fixtures are made, of whatever scope.
    """
    plain = item.get_closest_marker("optimized_graphs") is None
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": plain})


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same random state, in whatever order tests run: Python's, NumPy's and Keras's."""
    keras.utils.set_random_seed(SEED)
    return SEED


@pytest.fixture(autouse=True)
def full_float32():
    """On a GPU products are those of all of float32's bits, as on a CPU, whatever an earlier test has trained with."""
    tf.config.experimental.enable_tensor_float_32_execution(False)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """So does every fixture that several tests share: it is made before the fixture above takes effect."""
    if fixturedef.scope != "function":
        keras.utils.set_random_seed(SEED)


@pytest.fixture(scope="session")
def golden():
    """`golden("psa_mask")` -> (arrays, meta): numbers of the original implementation.

    Looks in tests/golden, then in the folder that the environment variable PSANET_GOLDEN names.
    """

    def load(name):
        folders = [GOLDEN] + [Path(folder) for folder in [os.environ.get("PSANET_GOLDEN")] if folder]
        for folder in folders:
            if (folder / f"{name}.npz").is_file():
                arrays = np.load(folder / f"{name}.npz")
                return arrays, json.loads(str(arrays["meta"]))
        pytest.skip(f"{name}.npz is neither in tests/golden nor in PSANET_GOLDEN")

    return load


@pytest.fixture
def channels_first():
    """Keras's configuration says channels first, as it does in a user's ~/.keras/keras.json."""
    from psanet_tf.keras_api import keras

    before = keras.backend.image_data_format()
    keras.backend.set_image_data_format("channels_first")
    yield
    keras.backend.set_image_data_format(before)


@pytest.fixture(scope="session")
def library():
    """The compiled op's library; without it (no compiler) the test is skipped."""
    from psanet_tf.ops import OpUnavailableError, load_op_library

    try:
        return load_op_library()
    except OpUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def two_replicas():
    """MirroredStrategy on two CPU devices. One for the whole process: a second one reuses the first one's
    keys of collective operations, and TensorFlow aborts where shapes or dtypes then differ.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture
def networkless_exports(monkeypatch):
    """Exports hold no network, which takes seconds, and are not checked: for tests of what else is written."""
    from psanet_tf.export import saved_model as export
    from psanet_tf.export.verification import Agreement

    class Networkless(tf.Module):
        def __init__(self, network, metadata, metadata_asset, pixels_only):
            super().__init__()
            self.metadata_asset = tf.saved_model.Asset(str(metadata_asset))

        def signatures(self):
            return {"serving_default": tf.function(lambda: {}, [], autograph=False)}

    monkeypatch.setattr(export, "ServingModule", Networkless)
    monkeypatch.setattr(export, "verify_export", lambda *arguments: Agreement(1.0, 0.0, 0.0))


@pytest.fixture(scope="session")
def evaluated_runs(tmp_path_factory):
    """Folder with a dataset in ADE20K's layout (``data``) and two run folders, ``psanet`` and ``fcn``.

    Six images of 40x56 pixels in the classes of the scenes; networks for 41x41 crops with random weights.
    """
    import json

    from PIL import Image

    from psanet_tf import PSANet
    from psanet_tf.config import dump_config, load_config
    from psanet_tf.data.catalog import dataset_info
    from psanet_tf.keras_api import keras

    root = tmp_path_factory.mktemp("evaluated")
    num_classes = dataset_info("scenes").num_classes
    generator = np.random.default_rng(0)
    for index in range(6):
        small = generator.integers(0, num_classes + 1, (5, 7)).astype("uint8")
        label = np.kron(small, np.ones((8, 8), "uint8"))
        image = (label[..., None] * np.array([20, 10, 5]) + generator.integers(0, 30, (40, 56, 3))).astype("uint8")
        for folder, array in (("images", image), ("annotations", label)):
            path = root / "data" / folder / "validation" / f"image_{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    for name, use_psa in (("psanet", True), ("fcn", False)):
        run = root / name
        run.mkdir()
        keras.utils.set_random_seed(1)
        model = PSANet(num_classes, blocks=(1, 1, 1, 1), width=8, input_shape=(41, 41, 3), use_psa=use_psa)
        model.save(run / "best.keras")
        (run / "dataset.json").write_text(json.dumps(dataset_info("scenes").to_dict()))
        (run / "source.yaml").write_text(
            f"data: {{dataset: scenes, root: {root / 'data'}, crop_size: [41, 41]}}\n"
            f"model: {{blocks: [1, 1, 1, 1], width: 8, use_psa: {str(use_psa).lower()}}}\n"
            "evaluate: {base_size: 56}\n"
        )
        (run / "config.yaml").write_text(dump_config(load_config(run / "source.yaml")))
    return root
