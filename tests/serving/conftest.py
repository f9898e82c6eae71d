"""A small network with weights that give every class some pixels, and its exports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import kernel_def_pb2

from psanet_tf import PSANet, SlidingWindow
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.export.saved_model import export_saved_model
from psanet_tf.serving.server import versions
from psanet_tf.serving.server.server import Server

# One scale, which is not 1: with each one more, a server's first image takes a second longer.
EVALUATE = EvaluateSection(base_size=60, scales=(0.75,), flip=True)


def small_network(seed=2, num_classes=21, size=33, **arguments):
    """PSANet with drawn weights and statistics: none is at its initial value, as after training."""
    model = PSANet(num_classes, blocks=(1, 1, 1, 1), width=8, input_shape=(size, size, 3), **arguments)
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(_draw(weight, generator))
    return model


def _draw(weight, generator):
    if "variance" in weight.path:
        return generator.uniform(0.5, 2, weight.shape)
    if "gamma" in weight.path:
        return generator.uniform(0.5, 1.5, weight.shape)
    if len(weight.shape) == 4:
        return generator.normal(0, np.sqrt(2 / np.prod(weight.shape[:3])), weight.shape)
    return generator.normal(0, 0.3, weight.shape)


@pytest.fixture(scope="session", autouse=True)
def few_collections():
    """Servers do not look for garbage: in this process, full of other tests' graphs, that takes half a second.

    -> what does it, for tests that want it.
    """
    with pytest.MonkeyPatch.context() as patch:
        collect = versions._collect_garbage
        patch.setattr(versions, "_collect_garbage", lambda: None)
        yield collect


@pytest.fixture(scope="session")
def write_toy():
    """`write_toy(folder, 3)` adds version 3 of a model that multiplies x [N, 2] by its version.

    With `weights` it holds so many numbers beside.
    """

    def write(folder, version, weights=0):
        module = tf.Module()
        module.factor = tf.Variable(tf.fill([weights + 1], float(version)))
        spec = tf.TensorSpec([None, 2], tf.float32, name="x")
        module.multiply = tf.function(lambda x: {"y": x * module.factor[0]}, [spec], autograph=False)
        hidden = folder / f".{version}"
        tf.saved_model.save(module, str(hidden), signatures={"serving_default": module.multiply})
        os.rename(hidden, folder / str(version))

    return write


KERNELS_OF_CPP = """
import ctypes, sys
class Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]
ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
library = ctypes.CDLL(sys.argv[2])
library.TF_NewStatus.restype = ctypes.c_void_p
library.TF_GetAllRegisteredKernels.restype = ctypes.POINTER(Buffer)
library.TF_GetAllRegisteredKernels.argtypes = [ctypes.c_void_p]
kernels = library.TF_GetAllRegisteredKernels(library.TF_NewStatus()).contents
sys.stdout.buffer.write(ctypes.string_at(kernels.data, kernels.length))
"""


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """(certificate, key): PEM files for localhost, signed by itself."""
    folder = tmp_path_factory.mktemp("certificate")
    paths = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here (Debian's package of that name)")
    subprocess.run([*command, *names, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


@pytest.fixture(scope="session")
def stock_operations():
    """Names of the ops that a program can run on a CPU which has linked TensorFlow and nothing else.

    As TensorFlow's own C++ library says in a process that has not loaded the Python package's extension modules: these
    bring kernels of their own, PyFunc's among them, and so does every custom op's library.
    """
    folder = Path(tf.sysconfig.get_lib())
    libraries = [next(folder.glob(f"libtensorflow_{name}.so*"), None) for name in ("framework", "cc")]
    if None in libraries:
        pytest.skip(f"TensorFlow's C++ library is not in {folder}")
    command = [sys.executable, "-c", KERNELS_OF_CPP, *map(str, libraries)]
    result = subprocess.run(command, capture_output=True, check=True, timeout=240)
    kernels = kernel_def_pb2.KernelList.FromString(result.stdout).kernel
    return {kernel.op for kernel in kernels if kernel.device_type in ("CPU", "DEFAULT")}


@pytest.fixture(scope="session")
def server(model_folder):
    """The small network, served over both protocols."""
    with Server(model_folder, rest_port=0, grpc_port=0, read_seconds=1, labels={"stable": 1}) as running:
        yield running


@pytest.fixture(scope="session")
def servable(server):
    """The small network's SavedModel, as the server loaded it."""
    with server.versions.use("psanet") as servable:
        yield servable


@pytest.fixture(params=["grpc", "http"])
def address(server, request):
    port = {"grpc": server.grpc_port, "http": server.rest_port}[request.param]
    return f"{request.param}://127.0.0.1:{port}/psanet"


@pytest.fixture(scope="session")
def ask_attention():
    """`ask_attention(servable, images, points)` -> answer of the signature."""

    def ask(servable, images, points):
        data = np.array([tf.io.encode_png(image).numpy() for image in images], object)
        return servable.run("attention", {"image_bytes": data, "points": np.asarray(points, np.float32)})

    return ask


@pytest.fixture(scope="session")
def make_network():
    return small_network


@pytest.fixture(scope="session")
def network():
    return small_network()


@pytest.fixture(scope="session")
def classes():
    return dataset_info("voc2012")


@pytest.fixture(scope="session")
def evaluate():
    return EVALUATE


@pytest.fixture(scope="session")
def window(network):
    """What labels images as the small network's export should."""
    return SlidingWindow(
        tf.function(network.inference()),
        network.num_classes,
        (33, 33),
        **EVALUATE.model_dump(include={"base_size", "scales", "flip", "stride_rate"}),
    )


@pytest.fixture(scope="session")
def model_folder(network, classes, tmp_path_factory):
    """Folder of a model with one float32 version, which the tests compare with the network themselves."""
    folder = tmp_path_factory.mktemp("models") / "psanet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("psanet_tf.export.saved_model.verify_export", lambda *arguments: None)
        export_saved_model(network, folder, classes, evaluate=EVALUATE)
    return folder
