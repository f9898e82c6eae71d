"""A program in C, with TensorFlow's library and no Python: it gets the same labels from an export."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from psanet_tf.export.saved_model import export_saved_model
from psanet_tf.export.verification import made_image
from psanet_tf.ops.op_library import OpUnavailableError, load_op_library
from psanet_tf.runtimes.saved_model import operations_on_disk

SOURCES = Path(__file__).parent / "c_program"

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(
        not (shutil.which("gcc") and shutil.which("make")),
        reason="needs gcc and make (Debian's package: build-essential)",
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "label_image"
    command = ["make", "-C", SOURCES, f"PYTHON={sys.executable}", f"OUT={path}"]
    if shutil.which("ld.gold"):
        # The usual linker takes ten seconds to look through TensorFlow's library.
        command.append("CC=gcc -fuse-ld=gold")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "blobs.jpg"
    path.write_bytes(tf.io.encode_jpeg(made_image((70, 91))).numpy())
    return path


def run(program, *arguments):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120)


def labels_from_python(servable, image):
    data = np.array([image.read_bytes()], object)
    answer = servable.run("predict_bytes", {"image_bytes": data})["label_bytes"][0]
    return tf.io.decode_png(answer).numpy()[..., 0]


def test_the_same_labels_as_in_python(program, image, model_folder, servable, tmp_path):
    done = run(program, model_folder / "1", image, tmp_path / "labels.png")
    assert done.returncode == 0, done.stderr
    expected = labels_from_python(servable, image)
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), expected)


def test_a_model_with_the_compiled_op(program, image, network, classes, evaluate, servable, tmp_path):
    try:
        library = load_op_library().path
    except OpUnavailableError as error:
        pytest.skip(f"the compiled op cannot be built here: {error}")
    exported = export_saved_model(network, tmp_path / "m", classes, evaluate, implementation="custom", warm_up=False)
    assert "PsaMask" in operations_on_disk(exported.path)
    without = run(program, exported.path, image, tmp_path / "labels.png")
    assert without.returncode == 1
    assert "Op type not registered 'PsaMask'" in without.stderr
    assert not (tmp_path / "labels.png").exists()
    done = run(program, exported.path, image, tmp_path / "labels.png", library)
    assert done.returncode == 0, done.stderr
    expected = labels_from_python(servable, image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), expected)


def test_errors_are_told(program, image, model_folder, tmp_path, write_toy):
    assert run(program).returncode == 2
    assert "SavedModel" in run(program, tmp_path / "none", image, tmp_path / "a.png").stderr
    missing = run(program, model_folder / "1", tmp_path / "none.jpg", tmp_path / "a.png")
    assert (missing.returncode, "cannot be opened" in missing.stderr) == (1, True)
    (tmp_path / "text.jpg").write_text("no image at all, but long enough")
    broken = run(program, model_folder / "1", tmp_path / "text.jpg", tmp_path / "a.png")
    assert (broken.returncode, "is no JPEG or PNG image" in broken.stderr) == (1, True)
    write_toy(tmp_path, 1)
    other = run(program, tmp_path / "1", image, tmp_path / "a.png")
    assert (other.returncode, "not in the model's signature predict_bytes" in other.stderr) == (1, True)
