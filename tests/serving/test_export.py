"""What `export_saved_model` writes, loaded back as a server loads it."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from psanet_tf import __version__, attention_maps
from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import dataset_info
from psanet_tf.data.readers import read_image
from psanet_tf.export.metadata import export_metadata
from psanet_tf.export.saved_model import export_saved_model
from psanet_tf.export.verification import made_image, model_logits, verify_export
from psanet_tf.inference.saved_model import SavedModelLabeler
from psanet_tf.inference.whole_image import any_size
from psanet_tf.keras_api import keras
from psanet_tf.ops import convolution
from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.runtimes.saved_model import SavedModelSession, operations_on_disk, signatures_on_disk
from psanet_tf.runtimes.warmup import FILE as WARM_UP_FILE
from psanet_tf.runtimes.warmup import read_warm_up, replay


@pytest.fixture(scope="module")
def whole(network, classes, evaluate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return SavedModelSession(export_saved_model(network, folder, classes, evaluate, whole=True, warm_up=False).path)


@pytest.mark.optimized_graphs
@pytest.mark.parametrize("batch", [1, 3])
def test_labels_scores_and_probabilities(network, servable, batch):
    images = np.stack([made_image((33, 33), seed=seed) for seed in range(batch)])
    expected = np.stack([tf.nn.softmax(model_logits(network, image)) for image in images])
    answer = servable.run("serving_default", {"images": images})
    probabilities = servable.run("probabilities", {"images": images})["probabilities"]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert len(np.unique(expected.argmax(-1))) > 2
    assert (answer["labels"] == expected.argmax(-1)).mean() >= 0.999
    assert answer["labels"].dtype == answer["scores"].dtype == np.uint8
    assert np.abs(answer["scores"] - 255 * expected.max(-1)).max() <= 0.51


@pytest.mark.optimized_graphs
@pytest.mark.parametrize("encode", [tf.io.encode_png, lambda x: tf.io.encode_jpeg(x, quality=95)])
def test_images_of_any_size_are_labelled_as_by_the_sliding_window(window, servable, encode, tmp_path):
    images = [made_image(size, seed) for seed, size in enumerate([(70, 91), (40, 33), (33, 33)])]
    data = np.array([encode(image).numpy() for image in images], object)
    answer = servable.run("predict_bytes", {"image_bytes": data})["label_bytes"]
    for encoded, label in zip(data, answer, strict=True):
        (tmp_path / "image").write_bytes(encoded)
        expected = window.labels(read_image(tmp_path / "image"))
        label = tf.io.decode_png(label).numpy()
        assert label.shape == (*expected.shape, 1)
        assert (label[..., 0] == expected).mean() >= 0.999


@pytest.mark.optimized_graphs
def test_only_an_export_for_cpus_has_products(network, classes, evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(convolution, "MIN_CHANNELS", 512)  # the head's
    gpus = []
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: gpus if kind == "GPU" else [])
    for there, expected in (([], "cpu"), (["a GPU"], "gpu")):
        gpus[:] = there
        assert export_metadata(network, classes, evaluate, device="cpu").device == "cpu"
        assert export_metadata(network, classes, evaluate, device="gpu").device == "gpu"
        exported = export_saved_model(network, tmp_path / "m", classes, evaluate, warm_up=False)
        if expected == "cpu":
            assert exported.agreement.labels >= 0.999 and exported.agreement.largest <= 1e-4
            # Without products it is the graph of the other tests, which are of how it answers.
            monkeypatch.setattr("psanet_tf.export.saved_model.verify_export", lambda *arguments: None)
        metadata = ModelMetadata.from_json((exported.path / "assets" / "metadata.json").read_text())
        assert metadata.device == expected
        model = saved_model_pb2.SavedModel.FromString((exported.path / "saved_model.pb").read_bytes())
        functions = model.meta_graphs[0].graph_def.library.function
        products = [function for function in functions if "sum_of_row_products" in function.signature.name]
        assert bool(products) == (expected == "cpu")


def test_a_whole_model_takes_any_size(network, whole):
    for size in [(33, 33), (41, 57), (50, 38)]:
        image = made_image(size)
        padded = np.pad(image, [(0, -(size[0] - 1) % 8), (0, -(size[1] - 1) % 8), (0, 0)])
        answer = whole.run("serving_default", {"images": image[None]})["labels"][0]
        assert answer.shape == size
        if padded.shape == image.shape:
            expected = model_logits(any_size(network), image).argmax(-1)
            assert (answer == expected).mean() >= 0.999


def test_a_whole_model_refuses_what_would_take_all_memory(whole):
    for size, padded in (((1600, 1500), "1601 rows x 1505 columns"), ((1, 2_100_225), "9 rows x 2100225 columns")):
        with pytest.raises(ServingError, match=f"padded to {padded}; its network may see 2370753 pixels") as caught:
            whole.run("serving_default", {"images": np.zeros((1, *size, 3), np.uint8)})
        assert caught.value.code == "INVALID_ARGUMENT"


def test_an_export_for_requests_that_are_joined(network, classes, evaluate, tmp_path):
    exported = export_saved_model(network, tmp_path / "m", classes, evaluate, pixels_only=True)
    assert exported.agreement.labels >= 0.999
    assert set(signatures_on_disk(exported.path)) == {"serving_default", "probabilities", "metadata"}
    text = (exported.path / "batching_params.pbtxt").read_text()
    most, *sizes = re.findall(r"^(?:max_batch_size \{ value: |allowed_batch_sizes: )(\d+)", text, re.MULTILINE)
    assert most == sizes[-1]
    session = SavedModelSession(exported.path)
    for name in ("serving_default", "probabilities"):
        # As many as are joined are always taken.
        session.run(name, {"images": np.zeros((int(most), 33, 33, 3), np.uint8)})
    with pytest.raises(ValueError, match="was exported with --pixels-only: a server answers from it"):
        SavedModelLabeler(exported.path)


def test_requests_of_any_size_are_not_joined(network, classes, tmp_path):
    with pytest.raises(ValueError, match="pixels_only is for networks of one input size"):
        export_saved_model(network, tmp_path / "m", classes, whole=True, pixels_only=True)


def test_variables_are_stored_once(network, model_folder):
    weights = sum(weight.shape.num_elements() * 4 for weight in network.inference().weights)
    stored = sum(file.stat().st_size for file in (model_folder / "1" / "variables").iterdir())
    # Folded: no gamma, mean and variance; beside them a few bytes per variable.
    assert 0.9 * weights < stored < 1.05 * weights


@pytest.mark.extended
@pytest.mark.optimized_graphs
def test_bfloat16_halves_the_file_and_keeps_the_labels(network, classes, evaluate, tmp_path, model_folder):
    exported = export_saved_model(network, tmp_path / "m", classes, evaluate, precision="bfloat16", warm_up=False)
    folders = [path / "variables" for path in (exported.path, model_folder / "1")]
    narrow, wide = (sum(file.stat().st_size for file in folder.iterdir()) for folder in folders)
    assert narrow < 0.55 * wide
    assert exported.agreement.labels > 0.95
    assert signatures_on_disk(exported.path)["probabilities"].outputs["probabilities"].dtype == tf.float32


def test_stock_models_hold_stock_operations_only(model_folder, stock_operations):
    operations = operations_on_disk(model_folder / "1")
    assert {"Conv2D", "BiasAdd", "DecodePng", "BatchMatMulV2"} <= operations
    assert operations - stock_operations == set()
    assert "FusedBatchNormV3" not in operations


def test_operations_that_a_server_refuses_are_told(stock_operations, tmp_path):
    def numpy(x):
        return tf.numpy_function(np.sin, [x], tf.float32)

    def python(x):
        return tf.py_function(tf.sin, [x], tf.float32)

    module = tf.Module()
    module.serve = tf.function(
        lambda x: tf.map_fn(numpy, x) + python(x), input_signature=[tf.TensorSpec([None])], autograph=False
    )
    tf.saved_model.save(module, str(tmp_path / "model"))
    assert operations_on_disk(tmp_path / "model") - stock_operations == {"PyFunc", "EagerPyFunc"}
    assert not {"PyFuncStateless", "PsaMask"} & stock_operations


@pytest.fixture(scope="module")
def baseline(make_network):
    return make_network(use_psa=False)


def test_versions_count_up_and_nothing_else_is_left(baseline, classes, evaluate, tmp_path):
    folder = tmp_path / "m"
    (folder / "7").mkdir(parents=True)
    (folder / "7" / "saved_model.pb").write_bytes(b"")
    (folder / "notes").mkdir()
    exported = export_saved_model(baseline, folder, classes, evaluate, warm_up=False)
    assert exported.agreement.labels >= 0.999
    assert "attention" not in signatures_on_disk(exported.path)
    assert exported.path == folder / "8"
    assert sorted(path.name for path in folder.iterdir()) == ["7", "8", "notes"]
    assert not (exported.path / WARM_UP_FILE).exists()
    assert sorted(path.name for path in exported.path.iterdir()) == [
        "assets",
        "fingerprint.pb",
        "saved_model.pb",
        "variables",
    ]


def test_a_failed_check_leaves_nothing(baseline, classes, evaluate, tmp_path, networkless_exports, monkeypatch):
    def fail(*arguments):
        raise ValueError("does not answer as the Keras model")

    monkeypatch.setattr("psanet_tf.export.saved_model.verify_export", fail)
    with pytest.raises(ValueError, match="does not answer"):
        export_saved_model(baseline, tmp_path / "m", classes, evaluate, warm_up=False)
    assert list((tmp_path / "m").iterdir()) == []


def test_exports_at_the_same_time_become_different_versions(
    baseline, classes, evaluate, tmp_path, networkless_exports, monkeypatch
):
    from psanet_tf.export import saved_model as export

    folder, check, paths = tmp_path / "m", export.verify_export, []

    def export_another_one(*arguments):
        if not paths:
            paths.append(None)
            paths[0] = export_saved_model(baseline, folder, classes, evaluate, warm_up=False).path
        return check(*arguments)

    (folder / "1").mkdir(parents=True)  # empty: somebody has made room
    monkeypatch.setattr(export, "verify_export", export_another_one)
    paths.append(export_saved_model(baseline, folder, classes, evaluate, warm_up=False).path)
    assert paths == [folder / "1", folder / "2"]
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            tf.errors.ResourceExhaustedError(None, None, "m/variables; No space left on device"),
            "no space left to write",
        ),
        (tf.errors.PermissionDeniedError(None, None, "m; Permission denied"), "cannot write an export into .*denied"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    baseline, classes, evaluate, tmp_path, networkless_exports, monkeypatch, error, message
):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match=message):
        export_saved_model(baseline, tmp_path / "m", classes, evaluate, warm_up=False)
    assert list((tmp_path / "m").iterdir()) == []


def test_the_check_tells_another_network(make_network, model_folder, tmp_path):
    metadata = ModelMetadata.from_json((model_folder / "1" / "assets" / "metadata.json").read_text())
    other = make_network(seed=3)
    with pytest.raises(ValueError, match="does not answer as the Keras model does"):
        # Without its warm-up, which would say nothing of that.
        copy = shutil.copytree(model_folder / "1", tmp_path / "1", ignore=shutil.ignore_patterns("assets.extra"))
        verify_export(copy, other, metadata)


def test_metadata_is_an_asset_and_a_signature(network, classes, evaluate, model_folder, servable):
    text = (model_folder / "1" / "assets" / "metadata.json").read_text()
    metadata = ModelMetadata.from_json(text)
    assert metadata.class_names == classes.class_names
    np.testing.assert_array_equal(metadata.dataset_info().colors, classes.colors)
    assert metadata.crop_size == (33, 33)
    assert metadata.scales == evaluate.scales
    assert metadata.package_version == __version__
    answer = servable.run("metadata", {"keys": np.array([b"all", b"crop_size"], object)})["values"]
    assert ModelMetadata.from_json(answer[0].decode()) == metadata
    assert json.loads(answer[1]) == [33, 33]
    with pytest.raises(ServingError, match="keys must be among: all, dataset, class_names"):
        servable.run("metadata", {"keys": np.array([b"colour"], object)})


def test_metadata_of_something_else():
    with pytest.raises(ValueError, match="not the metadata of a psanet_tf model"):
        ModelMetadata.from_json('{"classes": 3}')


def test_every_signature_has_a_small_warm_up_record(model_folder, servable):
    records = read_warm_up(model_folder / "1")
    assert sorted(name for name, _ in records) == sorted(servable.signatures)
    assert (model_folder / "1" / WARM_UP_FILE).stat().st_size < 10_000
    assert replay(servable) == len(servable.signatures)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no JPEG or PNG image"),
        (b"this is no image at all", "no JPEG or PNG image"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 40, "Invalid JPEG"),
        (b"GIF89a" + b"\0" * 40, "no JPEG or PNG image"),
    ],
)
def test_what_is_no_image_is_refused(servable, data, message):
    good = tf.io.encode_png(made_image((33, 33))).numpy()
    with pytest.raises(ServingError, match=message) as caught:
        servable.run("predict_bytes", {"image_bytes": np.array([good, data], object)})
    assert caught.value.code == "INVALID_ARGUMENT"


def test_headers_of_huge_images_are_refused_before_decoding(servable):
    png = bytearray(tf.io.encode_png(made_image((33, 33))).numpy())
    png[16:24] = (10_000).to_bytes(4, "big") * 2
    jpeg = bytearray(tf.io.encode_jpeg(made_image((33, 33))).numpy())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = (10_000).to_bytes(2, "big") * 2
    for data in (png, jpeg):
        with pytest.raises(ServingError, match=r"image_bytes\[0\] has 10000 rows x 10000 columns") as caught:
            servable.run("predict_bytes", {"image_bytes": np.array([bytes(data)], object)})
        assert caught.value.code == "INVALID_ARGUMENT"


def test_truncated_images_are_refused(servable):
    png = tf.io.encode_png(made_image((33, 33))).numpy()
    with pytest.raises(ServingError) as caught:
        servable.run("predict_bytes", {"image_bytes": np.array([png[: len(png) // 2]], object)})
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "float16"}, "precision of saved_model must be one of float32, bfloat16, got 'float16'"),
        ({"device": "tpu"}, "device must be one of cpu, gpu, got 'tpu'"),
        ({"implementation": "cuda"}, "implementation must be one of stock, custom, got 'cuda'"),
        ({"info": dataset_info("cityscapes")}, "the network has 21 classes, but the dataset 'cityscapes' has 19"),
    ],
)
def test_wrong_arguments(network, classes, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export_saved_model(network, tmp_path / "m", **{"info": classes, **arguments})
    assert not (tmp_path / "m").exists()


def test_wrong_networks(make_network, network, classes, tmp_path):
    compact, mmseg = make_network(compact=True), EvaluateSection(protocol="mmseg", scale=(90, 60))
    for arguments in ({"whole": True}, {"evaluate": mmseg}):
        with pytest.raises(ValueError, match="compact attention works only at the size it was built for, 33x33"):
            export_saved_model(compact, tmp_path / "m", classes, **arguments)
    with pytest.raises(ValueError, match="zoom_factor 8"):
        export_saved_model(make_network(zoom_factor=4), tmp_path / "m", classes)
    with pytest.raises(ValueError, match="has no crop size: export it with whole=True, or by evaluate.protocol=mmseg"):
        export_saved_model(any_size(network), tmp_path / "m", classes)
    with pytest.raises(ValueError, match=r"must be a psanet_tf.PSANet, got Functional"):
        inputs = keras.Input([33, 33, 3])
        export_saved_model(keras.Model(inputs, inputs), tmp_path / "m", classes)


@pytest.mark.extended
def test_compact_networks_and_those_of_one_direction_export_too(make_network, classes, tmp_path):
    brief = EvaluateSection(base_size=33, flip=False)
    for arguments, warm_up in (({"compact": True, "psa_type": "collect"}, False), ({"psa_type": "distribute"}, True)):
        # The check replays the warm-up, which asks every signature.
        exported = export_saved_model(make_network(**arguments), tmp_path / "m", classes, brief, warm_up=warm_up)
        assert exported.agreement.labels >= 0.999
        outputs = signatures_on_disk(exported.path)["attention"].outputs
        assert sorted(outputs) == [arguments["psa_type"], "image_box"]


def test_attention_of_a_network_of_any_size_is_of_the_image_at_its_own(network, whole, ask_attention):
    image, points = made_image((50, 61)), [(4, 40), (60, 0)]
    expected = attention_maps(any_size(network), image, points)
    answer = ask_attention(whole, [image], [points])
    assert answer["collect"].shape == (1, 2, *expected.placement.map_size)
    np.testing.assert_allclose(answer["collect"][0], expected.collect, atol=1e-5)
