"""Files for other programs: what is in them, what their runtimes make of it, and what `Segmenter` does with them."""

import dataclasses
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf import SlidingWindow
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import numbered_classes
from psanet_tf.export.frozen import frozen_graph
from psanet_tf.export.metadata import export_metadata
from psanet_tf.export.model_file import export_file
from psanet_tf.export.saved_model import export_saved_model
from psanet_tf.export.verification import made_image, model_logits
from psanet_tf.files import NoSpaceError
from psanet_tf.inference.attention import attention_maps, attention_matrices
from psanet_tf.inference.mmseg_protocol import MMSegProtocol
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.inference.whole_image import any_size
from psanet_tf.runtimes.model_file import SUFFIXES, ModelFile, exported_model, open_model_file, output_names
from psanet_tf.weights.files import weights_identity

pytestmark = pytest.mark.extended

PACKAGES = {
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert",),
}


def needed(format):
    for package in PACKAGES[format]:
        pytest.importorskip(package, reason=f"{package} of the extra {format} is not installed")


@pytest.fixture(scope="module")
def export(network, classes, evaluate, tmp_path_factory):
    """`export(format)` -> `Export` of the small network, made once; skips where the format's packages are missing."""
    made = {}

    def exported(format):
        needed(format)
        if format not in made:
            path = tmp_path_factory.mktemp("files") / f"psanet{SUFFIXES[format]}"
            made[format] = export_file(network, path, classes, evaluate)
        return made[format]

    return exported


def softmax(network, images):
    return np.stack([tf.nn.softmax(model_logits(network, image)) for image in images])


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_file_answers_as_the_network(export, network, classes, evaluate, format):
    exported = export(format)
    assert exported.agreement.labels >= 0.999 and exported.agreement.largest < 1e-4
    names = [exported.path.name] + ([exported.path.with_suffix(".bin").name] if format == "openvino" else [])
    assert sorted(path.name for path in exported.path.parent.iterdir()) == sorted(names)
    file = open_model_file(exported.path)
    images = np.stack([made_image((33, 33), seed) for seed in range(3)])
    expected = softmax(network, images)
    answer = file.run(images)
    with pytest.raises(ValueError, match="outputs must be among labels, .*image_box, got points$"):
        file.run(images, ["labels", "points"])
    assert {name: (values.dtype, values.shape) for name, values in answer.items()} == {
        "labels": (np.uint8, (3, 33, 33)),
        "scores": (np.uint8, (3, 33, 33)),
        "probabilities": (np.float32, (3, 33, 33, 21)),
    }
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    assert len(np.unique(expected.argmax(-1))) > 2
    assert (answer["labels"] == expected.argmax(-1)).mean() >= 0.999
    assert np.abs(answer["scores"] - 255 * expected.max(-1)).max() <= 0.51
    # Numbers that a photograph has not are rounded to those that it has.
    np.testing.assert_array_equal(file.predict(images + np.float32(0.4)), answer["probabilities"])
    np.testing.assert_array_equal(
        file.predict(np.full((1, 33, 33, 3), 300.0)), file.predict(np.full((1, 33, 33, 3), 255))
    )
    wanted = export_metadata(network, classes, evaluate, format=format)
    for field in ("class_names", "colors", "input_size", "mean", "base_size", "scales", "flip", "precision"):
        assert getattr(file.metadata, field) == getattr(wanted, field), field
    assert (file.metadata.device, file.metadata.directions) == ("any", ("collect", "distribute"))


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_file_gives_the_attention_that_its_network_uses(export, network, format):
    exported = export(format)
    assert exported.agreement.attention < 1e-4
    images = np.stack([made_image((33, 33), seed) for seed in range(2)])
    answer = open_model_file(exported.path).run(images, ("collect", "distribute", "image_box"))
    for index, image in enumerate(images):
        matrices, placement = attention_matrices(network, image)
        rows, columns = placement.map_size
        for direction, expected in matrices.items():
            assert answer[direction].shape == (2, rows, columns, rows, columns)
            found = answer[direction][index].reshape(expected.shape)
            np.testing.assert_allclose(found, expected, atol=1e-5)
            assert expected.std() > 1e-3
        # One position every 16 pixels, from corner to corner.
        np.testing.assert_allclose(answer["image_box"][index], [-0.5 / 16] * 2 + [32.5 / 16] * 2, atol=1e-6)


@pytest.mark.parametrize("size", [(33, 33), (20, 33), (90, 70)])
def test_attention_of_a_file_is_that_of_its_network(export, network, size):
    """Of an image as large as the crop exactly; where it is reduced or padded, up to the rounding of pixels."""
    segmenter = Segmenter.load(export("onnx").path)
    image = made_image(size, seed=4)
    points = [(0, 0), (size[1] - 1, size[0] // 2)]
    expected, found = attention_maps(network, image, points), segmenter.attention(image, points)
    assert found.placement.map_size == expected.placement.map_size
    for field in ("image_size", "resized_size", "offset", "input_size", "first", "step"):
        np.testing.assert_allclose(getattr(found.placement, field), getattr(expected.placement, field), atol=1e-4)
    for direction, maps in expected.directions().items():
        np.testing.assert_allclose(found.directions()[direction], maps, atol=1e-5 if size == (33, 33) else 0.02)
    with pytest.raises(ValueError, match="lies outside of the image"):
        segmenter.attention(image, [(size[1], 0)])


@pytest.mark.parametrize("arguments", [{"psa_type": "distribute"}, {"compact": True}, {"psa_softmax": False}], ids=str)
def test_attention_of_other_networks(make_network, classes, evaluate, tmp_path, arguments):
    needed("onnx")
    network = make_network(**arguments)
    export_file(network, tmp_path / "m.onnx", classes, evaluate)
    image = made_image((33, 33), seed=4)
    expected = attention_maps(network, image, [(5, 20)])
    found = Segmenter.load(tmp_path / "m.onnx").attention(image, [(5, 20)])
    assert list(found.directions()) == list(expected.directions())
    for direction, maps in expected.directions().items():
        np.testing.assert_allclose(found.directions()[direction], maps, atol=1e-5 * np.abs(maps).max())


def test_a_file_without_attention_says_so(make_network, classes, evaluate, tmp_path):
    needed("onnx")
    exported = export_file(make_network(use_psa=False), tmp_path / "fcn.onnx", classes, evaluate)
    assert exported.agreement.attention is None
    file = open_model_file(tmp_path / "fcn.onnx")
    assert file.metadata.directions == ()
    assert sorted(file.run(made_image((33, 33))[None])) == ["labels", "probabilities", "scores"]
    with pytest.raises(ValueError, match="fcn.onnx has no attention to show: .* export it again"):
        Segmenter.load(tmp_path / "fcn.onnx").attention(made_image((33, 33)), [(1, 1)])


def test_the_command_draws_the_attention_of_a_file(export, tmp_path):
    _register()
    Image.fromarray(made_image((50, 70))).save(tmp_path / "photo.png")
    arguments = ["attention", "--image", tmp_path / "photo.png", "--weights", export("onnx").path, "--point", "3,4"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    sheet = np.asarray(Image.open(tmp_path / "photo_attention.png"))
    assert sheet.shape[1] > 3 * 70 and len(np.unique(sheet)) > 50
    assert (tmp_path / "photo_attention.html").is_file()


def test_the_check_tells_another_attention(export, network, monkeypatch):
    from psanet_tf.export import verification

    path = export("onnx").path
    metadata = open_model_file(path).metadata

    def others(model, image, images):
        matrices, placement = attention_matrices(model, image, images)
        return {name: matrix.T for name, matrix in matrices.items()}, placement

    def elsewhere(model, image, images):
        matrices, placement = attention_matrices(model, image, images)
        return matrices, dataclasses.replace(placement, first=(8.0, 8.0))

    for patch, message in ((others, "attention is not that of the Keras"), (elsewhere, "puts its attention elsewhere")):
        monkeypatch.setattr(verification, "attention_matrices", patch)
        with pytest.raises(ValueError, match=message):
            verification.verify_file(path, network, metadata)


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_openvino_finds_the_same_network_in_files_for_others(export, network, format):
    """A reader that shares no code with those that the files are for. The .xml file is its own, see above."""
    needed("openvino")
    import openvino

    file = open_model_file(export(format).path)
    core = openvino.Core()
    model = core.compile_model(core.read_model(file.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.get_any_name() for output in model.outputs]
    if format == "litert":
        # It goes by the tensors' own names, which number the outputs in the order of their names.
        names = [sorted(output_names(file.metadata))[int(name.partition(":")[2])] for name in names]
    # What is the same for all images it leaves out of a .tflite file.
    assert set(output_names(file.metadata)) - set(names) == ({"image_box"} if format == "litert" else set())
    images = np.stack([made_image((33, 33), seed) for seed in range(3)])
    answers = [list(model(image[None]).values()) for image in images]
    answer = {name: np.concatenate(parts) for name, parts in zip(names, zip(*answers, strict=True), strict=True)}
    expected = softmax(network, images)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
    assert (answer["labels"] == expected.argmax(-1)).mean() >= 0.999
    assert np.abs(answer["scores"] - 255 * expected.max(-1)).max() <= 0.51
    for direction, matrices in file.run(images, file.metadata.directions).items():
        np.testing.assert_allclose(answer[direction], matrices, atol=1e-5)


@pytest.mark.parametrize("images", [np.zeros((33, 33, 3)), np.zeros((1, 33, 41, 3)), np.zeros((1, 33, 33, 1))])
def test_images_of_other_shapes_are_told(export, images):
    with pytest.raises(ValueError, match=r"images must be \[B, 33, 33, 3\], got \[[\d, ]+\]$"):
        open_model_file(export("onnx").path).run(images)


@pytest.mark.parametrize("format", SUFFIXES)
def test_images_of_any_size_are_labelled_by_the_protocol(export, window, format):
    segmenter = Segmenter.load(export(format).path)
    assert (segmenter.protocol, segmenter.base_size, segmenter.path) == ("semseg", 60, export(format).path)
    image = made_image((70, 91), seed=4)
    expected, found = window(image), segmenter.probabilities(image)
    # Resized pixels are rounded for the file.
    assert np.abs(found - expected).max() < 0.1 and np.abs(found - expected).mean() < 3e-3
    labels = segmenter.labels(image)
    assert (labels == expected.argmax(-1)).mean() > 0.97
    np.testing.assert_array_equal(labels, found.argmax(-1))
    np.testing.assert_allclose(segmenter.confidence(image), found.max(-1))
    with pytest.raises(ValueError, match="is an exported model: its sizes and scales were fixed"):
        Segmenter.load(export(format).path, whole=True)


def test_where_nothing_is_rounded_labels_are_those_of_the_network(export, network):
    """At scale 1 of its own size an image's pixels reach the file as they are."""
    segmenter = Segmenter.load(export("onnx").path)
    image = made_image((33, 33), seed=4)
    window = SlidingWindow(network.inference(), 21, (33, 33), base_size=33)
    file = segmenter._labeler.labeler
    file.base_size, file.scales = 33, (1.0,)
    np.testing.assert_allclose(segmenter.probabilities(image), window(image), atol=1e-5)


def test_the_graph_holds_plain_operations_alone(network, classes, evaluate):
    metadata = export_metadata(network, classes, evaluate, format="onnx")
    graph = frozen_graph(network, metadata)
    operations = {node.op for node in graph.node}
    unwanted = {"FusedBatchNormV3", "SpaceToBatchND", "While", "StatelessWhile", "PartitionedCall", "ReadVariableOp"}
    assert operations & (unwanted | {"ResizeBilinear", "PsaMask", "VarHandleOp"}) == set()
    assert not graph.library.function
    dilations = {tuple(node.attr["dilations"].list.i) for node in graph.node if node.op == "Conv2D"}
    assert {(1, 2, 2, 1), (1, 4, 4, 1)} <= dilations


def test_the_graph_holds_the_temperature(network, classes, evaluate):
    metadata = export_metadata(network, classes, evaluate, format="onnx")
    image = made_image((33, 33))
    found = []
    for temperature in (1.0, 2.0):
        graph_def = frozen_graph(network, dataclasses.replace(metadata, temperature=temperature))
        with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
            tf.graph_util.import_graph_def(graph_def, name="")
            found.append(session.run("probabilities:0", {"images:0": image[None]})[0])
    logits = model_logits(network, image)
    np.testing.assert_allclose(found[0], tf.nn.softmax(logits), atol=1e-5)
    np.testing.assert_allclose(found[1], tf.nn.softmax(logits / 2), atol=1e-5)


@pytest.mark.parametrize("format", SUFFIXES)
def test_what_is_no_such_file_is_told(tmp_path, format):
    needed(format)
    path = tmp_path / f"model{SUFFIXES[format]}"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        open_model_file(path)
    assert exported_model(path) is None
    path.write_bytes(b"this is no model at all" * 10)
    with pytest.raises(ValueError, match="cannot be loaded as an? (ONNX|OpenVINO|LiteRT) model"):
        open_model_file(path)
    with pytest.raises(ValueError, match="must end in .onnx, .xml, .tflite"):
        open_model_file(tmp_path / "model.pb")


def test_models_of_others_are_refused(export, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(export("onnx").path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="other.onnx says nothing of its classes: it was not made by psanet export"):
        Segmenter.load(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("format", "package", "what"),
    [("onnx", "onnxruntime", "ONNX"), ("openvino", "openvino", "OpenVINO"), ("litert", "ai_edge_litert", "LiteRT")],
)
def test_a_missing_runtime_is_told(network, classes, evaluate, tmp_path, monkeypatch, format, package, what):
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"model{SUFFIXES[format]}"
    if format != "onnx" or "tf2onnx" in sys.modules:
        with pytest.raises(ImportError, match=rf"export needs .*: pip install 'psanet-tf\[{format}\]'"):
            export_file(network, path, classes, evaluate)
    path.write_bytes(b"")
    with pytest.raises(ImportError, match=rf"^{what} needs {package}.*: pip install 'psanet-tf\[{format}\]'"):
        open_model_file(path)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("m.pb", {}, "m.pb must end in .onnx, .xml, .tflite, which says the format"),
        ("m.onnx", {"format": "litert"}, "m.onnx must end in .tflite, as files of litert do"),
        ("m.onnx", {"format": "coreml"}, "format must be one of onnx, openvino, litert, got 'coreml'"),
        ("m.onnx", {"precision": "int8"}, "precision of onnx must be one of float32, got 'int8'"),
        ("m.tflite", {"precision": "int8"}, "precision int8 needs images that tell the ranges"),
        ("m.tflite", {"whole": True}, "a LiteRT file takes images of one size"),
    ],
)
def test_wrong_arguments(network, classes, evaluate, tmp_path, name, arguments, message):
    if name.endswith(".tflite"):
        needed("litert")
    with pytest.raises(ValueError, match=message):
        export_file(network, tmp_path / name, classes, evaluate, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["saved_model", *SUFFIXES])
def test_a_disk_without_room_is_told_before_any_work(network, classes, evaluate, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 500_000}))
    monkeypatch.setattr("psanet_tf.export.model_file.frozen_graph", None)
    monkeypatch.setattr("psanet_tf.export.saved_model.ServingModule", None)
    with pytest.raises(
        NoSpaceError, match=r"write \S+/(1|m\.\w+): needs about [\d.]+ MB, 500.0 kB are free; .*Make room"
    ):
        if kind == "saved_model":
            export_saved_model(network, tmp_path, classes, evaluate, warm_up=False)
        else:
            needed(kind)
            export_file(network, tmp_path / f"m{SUFFIXES[kind]}", classes, evaluate)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_converted_is_told(network, classes, evaluate, tmp_path, monkeypatch):
    needed("openvino")

    def fail(*arguments):
        raise RuntimeError("no such operation")

    monkeypatch.setattr("psanet_tf.export.openvino.write", fail)
    with pytest.raises(ValueError, match="the network cannot be converted to openvino: no such operation"):
        export_file(network, tmp_path / "psanet.xml", classes, evaluate)
    assert not list(tmp_path.iterdir())


def test_gelu_is_written_in_operations_of_onnx():
    from psanet_tf.export.onnx import _without_erfc

    x = np.linspace(-4, 4, 9, dtype=np.float32)
    expected = tf.nn.gelu(x).numpy()
    with tf.Graph().as_default() as graph:
        tf.identity(tf.nn.gelu(tf.compat.v1.placeholder(tf.float32, [9], name="x")), name="y")
    plain = _without_erfc(graph.as_graph_def())
    assert "Erfc" in {node.op for node in graph.as_graph_def().node}
    assert "Erfc" not in {node.op for node in plain.node}
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(plain, name="")
        np.testing.assert_allclose(session.run("y:0", {"x:0": x}), expected, atol=1e-6)


def test_nothing_is_overwritten_and_a_failed_check_leaves_nothing(network, classes, evaluate, tmp_path, monkeypatch):
    needed("openvino")
    (tmp_path / "there.bin").write_text("weights")
    with pytest.raises(FileExistsError, match="there.bin is there already"):
        export_file(network, tmp_path / "there.xml", classes, evaluate)

    def write(graph_def, metadata, path, calibration):
        path.write_text("half")
        path.with_suffix(".bin").write_text("half")

    def fail(*arguments):
        raise ValueError("does not answer as the Keras model")

    monkeypatch.setattr("psanet_tf.export.openvino.write", write)
    monkeypatch.setattr("psanet_tf.export.model_file.verify_file", fail)
    with pytest.raises(ValueError, match="does not answer"):
        export_file(network, tmp_path / "psanet.xml", classes, evaluate)
    assert [path.name for path in tmp_path.iterdir()] == ["there.bin"]


def test_the_check_tells_another_network_and_other_metadata(export, make_network):
    from psanet_tf.export.verification import verify_file

    path = export("onnx").path
    metadata = open_model_file(path).metadata
    with pytest.raises(ValueError, match="does not answer as the Keras model does"):
        verify_file(path, make_network(seed=3), metadata)
    with pytest.raises(ValueError, match="says other things of itself"):
        verify_file(path, make_network(seed=3), dataclasses.replace(metadata, base_size=61))


@pytest.mark.parametrize(
    ("format", "precision"), [("openvino", "float16"), ("openvino", "int8"), ("litert", "float16"), ("litert", "int8")]
)
def test_fewer_bits_make_smaller_files(export, network, classes, evaluate, tmp_path, format, precision):
    def size(path):
        return sum(file.stat().st_size for file in path.parent.iterdir())

    if (format, precision) == ("openvino", "int8"):
        pytest.importorskip("nncf", reason="nncf of the extra openvino-int8 is not installed")
    wide = export(format).path
    path = tmp_path / wide.name
    images = [made_image((33, 33), seed) for seed in range(6)]
    exported = export_file(network, path, classes, evaluate, precision=precision, calibration=images)
    assert size(path) < {"float16": 0.65, "int8": 0.5}[precision] * size(wide)
    assert exported.agreement.labels > {"float16": 0.97, "int8": 0.8}[precision]
    file = open_model_file(path)
    assert file.metadata.precision == precision
    assert file.run(images[0][None])["probabilities"].dtype == np.float32


def test_weights_of_a_pair_are_told_apart(tmp_path):
    identities = set()
    for numbers in (b"1", b"2"):
        (tmp_path / "model.xml").write_text("<net/>")
        (tmp_path / "model.bin").write_bytes(numbers)
        identities.add(weights_identity(tmp_path / "model.xml"))
    assert len(identities) == 2


def test_the_command_writes_a_file_and_labels_with_it(evaluated_runs, tmp_path):
    needed("onnx")
    _register()
    arguments = ["export", "--weights", evaluated_runs / "fcn", "--out", tmp_path / "fcn.onnx"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert "of the labels equal" in result.output and f"is in {tmp_path / 'fcn.onnx'}" in result.output
    Image.fromarray(made_image((50, 70))).save(tmp_path / "photo.png")
    arguments = ["predict", tmp_path / "photo.png", "--weights", tmp_path / "fcn.onnx", "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    labels = np.asarray(Image.open(tmp_path / "out" / "labels" / "photo.png"))
    np.testing.assert_array_equal(labels, Segmenter.load(tmp_path / "fcn.onnx").labels(made_image((50, 70))))
    result = CliRunner().invoke(app, ["export", "--weights", str(tmp_path / "fcn.onnx"), "--out", "x"])
    assert "is exported already" in str(result.exception)
    scores = {}
    for weights in (evaluated_runs / "fcn", tmp_path / "fcn.onnx"):
        out = tmp_path / f"scores_of_{weights.name}"
        config = evaluated_runs / "fcn" / "config.yaml"
        arguments = ["evaluate", "--weights", weights, "--config", config, "--out", out, "--limit", "2", "--worst", "0"]
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        scores[weights.name] = (out / "labels" / "image_0.png").read_bytes()
    first, second = (
        np.asarray(Image.open(tmp_path / f"scores_of_{name}" / "labels" / "image_0.png")) for name in scores
    )
    assert (first == second).mean() > 0.97


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "m.onnx", "--device", "cpu"], "--device is for SavedModels, not for --format onnx"),
        (["--out", "m.xml", "--implementation", "custom"], "--implementation is for SavedModels"),
        (["--out", "m.onnx", "--calibration", "photos"], "--calibration is for --precision int8, not for float32"),
        (["--out", "m", "--format", "onnx"], "m must end in .onnx, as files of onnx do"),
        (
            ["--out", "m.xml", "--format", "saved_model", "--precision", "int8"],
            "precision of saved_model must be one of",
        ),
    ],
)
def test_wrong_options(evaluated_runs, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    _register()
    result = CliRunner().invoke(app, ["export", "--weights", str(evaluated_runs / "fcn"), *options])
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("format", "protocol"), [("openvino", "mmseg"), ("onnx", "whole")])
def test_networks_of_any_size(make_network, network, classes, tmp_path, format, protocol):
    needed(format)
    path = tmp_path / f"m{SUFFIXES[format]}"
    image = made_image((50, 71), seed=3)
    if protocol == "mmseg":
        model = make_network(num_classes=5, variant="mmseg", mask_size=(6, 6), psa_type="collect")
        section = EvaluateSection(protocol="mmseg", mode="slide", scale=(90, 60), crop_size=(40, 33), stride=(27, 22))
        export_file(model, path, numbered_classes(5), section)
        wide = any_size(model).inference()
        expected = MMSegProtocol(wide, 5, (90, 60), False, (40, 33), (27, 22))(image)
    else:
        section, model = EvaluateSection(base_size=60, scales=(0.75,)), network
        export_file(network, path, classes, section, whole=True)
        expected = graph_whole_labels(network, image)
    segmenter = Segmenter.load(path)
    # Images at their own size, padded: up to the rounding of the mean colour.
    points = [(3, 40), (70, 0)]
    maps, wanted = segmenter.attention(image, points), attention_maps(any_size(model), image, points)
    np.testing.assert_allclose(maps.placement.first, wanted.placement.first, atol=1e-3)
    np.testing.assert_allclose(maps.placement.step, wanted.placement.step, atol=1e-3)
    assert list(maps.directions()) == list(wanted.directions())
    for direction, values in wanted.directions().items():
        np.testing.assert_allclose(maps.directions()[direction], values, atol=0.02)
    if protocol == "mmseg":
        np.testing.assert_allclose(segmenter.probabilities(image), expected, atol=1e-4)  # its pixels are whole numbers
    else:
        assert (segmenter.labels(image) == expected).mean() > 0.97


def graph_whole_labels(network, image):
    from psanet_tf.export.graph.whole import GraphWhole

    wide = any_size(network).inference()
    labeler = GraphWhole(wide, network.num_classes, True, 60, (0.75,), True)
    return tf.function(labeler.labels, [tf.TensorSpec([None, None, 3], tf.uint8)], autograph=False)(image).numpy()


def test_files_are_of_a_common_kind():
    with pytest.raises(TypeError, match="abstract"):
        ModelFile("m.onnx")
