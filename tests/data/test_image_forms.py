"""Files of every form: all readers see the same pixels and label values, and those that the files hold."""

import io
import re

import numpy as np
import pytest
import tensorflow as tf
from image_forms import DOCUMENT, FORMS, document_text, exif, png
from PIL import Image

from psanet_tf.config import Config
from psanet_tf.data import headers
from psanet_tf.data.catalog import info_of
from psanet_tf.data.checking import check_splits
from psanet_tf.data.decoding import decode_image, label_values
from psanet_tf.data.graph_headers import jpeg_orientation
from psanet_tf.data.image_format import PHOTOGRAPHS
from psanet_tf.data.normalization import MEAN, STD
from psanet_tf.data.pipeline import evaluation_dataset
from psanet_tf.data.pixels import damage, is_plain, is_read_by_graph
from psanet_tf.data.plain_copies import graph_readable
from psanet_tf.data.readers import list_examples, read_example, read_image
from psanet_tf.data.record_writer import write_records
from psanet_tf.data.unreadable import readable_pipeline_errors
from psanet_tf.export.graph.checking import check_request
from psanet_tf.inference.image_files import label_images
from psanet_tf.inference.inputs import InputFile
from psanet_tf.serving.client.client import _given

CROP = (33, 33)
STRING = [tf.TensorSpec([], tf.string)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PSANET_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "image_cache"))


@pytest.fixture(scope="module")
def files():
    """[(form, orientation or None, bytes, expected image or None, expected labels or None)]"""
    made = []
    rng = np.random.default_rng(0)
    for form in FORMS:
        for orientation in (None, *(rng.choice(range(1, 9), 3, replace=False).tolist() if form.orientations else ())):
            size = tuple(int(length) for length in rng.integers(1, 31, 2))
            made.append((form, orientation, *form.make(rng, size, orientation)))
    return made


@pytest.fixture(scope="module")
def dataset(files, tmp_path_factory):
    """(DataSection, expected images and labels by name): all files that are no refused images, in a list; those
    that can be labels have themselves as labels."""
    root = tmp_path_factory.mktemp("forms")
    lines, expected = [], {}
    for index, (form, _, contents, image, label) in enumerate(files):
        if image is None:
            continue
        path = root / f"{index:03}{form.suffix}"
        path.write_bytes(contents)
        label_path = path
        if label is None:
            label = np.zeros(image.shape[:2], np.uint8)
            label_path = root / f"{index:03}_label.png"
            Image.fromarray(label).save(label_path)
        lines.append(f"{path.name} {label_path.name}")
        expected[path.stem] = image, label
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("\n".join(lines))
    (root / "names.txt").write_text("\n".join(f"class {index}" for index in range(254)))
    config = {"dataset": "custom", "root": str(root), "class_names": "names.txt", "list_file": "{split}.txt"}
    return Config.model_validate({"data": config | {"crop_size": CROP}}).data, expected


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except (ValueError, tf.errors.OpError):
        return None


def differing(files, read, column):
    """What is not read as it should be: names of forms with what came instead."""
    wrong = []
    for form, orientation, contents, *expected in files:
        array = outcome(read, contents)
        right = expected[column]
        if (array is None) != (right is None) or (right is not None and not np.array_equal(array, right)):
            wrong.append((form.name, orientation, array if array is None else array.shape))
    return wrong


def test_operations_read_what_files_hold_or_refuse(files):
    decode, label = (tf.function(function, STRING) for function in (decode_image, label_values))
    for_operations = [file for file in files if is_read_by_graph(file[2])]
    others = [(form, orientation, contents, None, None) for form, orientation, contents, *_ in files]
    others = [file for file in others if not is_read_by_graph(file[2])]
    assert len(for_operations) > 80
    assert len(others) > 40
    assert differing(for_operations, lambda contents: decode(contents).numpy(), 0) == []
    assert differing(others, lambda contents: decode(contents).numpy(), 0) == []
    assert differing(files, lambda contents: label(contents).numpy(), 1) == []


def test_what_servers_get_is_read_as_files_are(files):
    decode = tf.function(
        lambda data: decode_image(check_request(data[None], 1, 10**6, PHOTOGRAPHS)[0], "image_bytes[0]"), STRING
    )
    assert differing(files, lambda contents: decode(_given(contents).encoded(PHOTOGRAPHS)).numpy(), 0) == []
    assert all(
        _given(contents).size in (image.shape[:2], image.shape[1::-1])
        for _, _, contents, image, _ in files
        if image is not None
    )


def test_plain_images_are_what_any_decoder_reads(files):
    plain = [file for file in files if is_plain(file[2])]
    assert {form.name for form, *_ in plain} == {
        "JPEG, RGB", "JPEG, RGB without chroma subsampling, progressive", "JPEG, grey", "PNG, grey, 8-bit",
        "PNG, RGB, 8-bit",
    }  # fmt: skip

    def pillow(contents):
        return np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))

    assert differing(plain, pillow, 0) == []


def test_checking_and_evaluation(dataset):
    data, expected = dataset
    (report,) = check_splits(data, ["val"])
    assert [problem.what for problem in report.problems if "palettes" not in problem.what] == []
    for example in list_examples(data, "val"):
        for array, right in zip(read_example(example, info_of(data)), expected[example.name], strict=True):
            assert np.array_equal(array, right)


def pipeline_examples(data):
    """(image, labels) of the validation split, uint8, with what fills them up to the crop size."""
    for images, labels in evaluation_dataset(Config(data=data), 16):
        yield from zip(np.round(images.numpy() * STD + MEAN).astype(int), labels["logits"].numpy(), strict=True)


@pytest.mark.parametrize("data_format", ["files", "tfrecord"])
def test_the_pipeline(dataset, tmp_path, data_format):
    data, expected = dataset
    names = [example.name for example in list_examples(data, "val")]
    if data_format == "tfrecord":
        write_records(data, "val", tmp_path, workers=2)
        (tmp_path / "names.txt").write_text("\n".join(f"class {index}" for index in range(254)))
        data = data.model_copy(update={"format": "tfrecord", "root": str(tmp_path)})
    with readable_pipeline_errors(data):
        for name, (pixels, label) in zip(names, pipeline_examples(data), strict=False):
            image, values = expected[name]
            top, left = [(crop - size) // 2 for crop, size in zip(CROP, values.shape, strict=True)]
            rows, columns = slice(top, top + len(values)), slice(left, left + values.shape[1])
            assert np.array_equal(pixels[rows, columns], image), name
            assert np.array_equal(label[rows, columns], values), name


def test_prediction(dataset, tmp_path):
    class Recorder:
        def labels(self, image):
            seen.append(image)
            return np.zeros(image.shape[:2], np.uint8)

    seen = []
    data, expected = dataset
    examples = list_examples(data, "val")[::7]
    images = [InputFile(example.image_path, example.name) for example in examples]
    assert label_images([Recorder()], images, info_of(data), tmp_path) == {}
    for example, image in zip(examples, seen, strict=True):
        assert np.array_equal(image, expected[example.name][0])


def test_copies_are_made_once_and_anew_when_the_file_changes(tmp_path):
    path = tmp_path / "a.bmp"
    Image.new("RGB", (3, 4), "red").save(path)
    (copy,) = graph_readable([path])
    assert np.array_equal(decode_image(tf.io.read_file(copy)), read_image(path))
    Image.new("RGB", (3, 5), "blue").save(path)
    (other,) = graph_readable([path])
    assert other != copy
    assert np.array_equal(decode_image(tf.io.read_file(other)), read_image(path))
    assert graph_readable([path]) == [other]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    Image.new("RGB", (3, 4)).save(tmp_path / "a.bmp")
    (tmp_path / "file").touch()
    monkeypatch.setenv("PSANET_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(
        OSError, match=r"a\.bmp needs a PNG copy in the cache.*PSANET_CACHE_DIR can name another folder"
    ):
        graph_readable([tmp_path / "a.bmp"])


def test_damaged_and_odd_exif_blocks_are_understood_alike():
    """What cannot be understood is upright for all readers."""
    draw = np.random.default_rng(0)
    read = tf.function(jpeg_orientation, STRING)
    found = set()
    for index in range(150):
        block = bytearray(exif(int(draw.integers(0, 11)), "<>"[index % 2]))
        for place in draw.integers(0, len(block), draw.integers(0, 3)):
            block[place] = draw.integers(0, 256)
        block = bytes(block[: draw.integers(5, len(block) + 1)]) if index % 5 == 0 else bytes(block)
        contents = b"\xff\xd8\xff\xfe\0\5abc\xff\xe1" + (8 + len(block)).to_bytes(2, "big") + b"Exif\0\0" + block
        contents += b"\xff\xdb" + bytes(draw.integers(0, 20))
        expected = headers.orientation(contents)
        found.add(expected)
        assert int(read(contents)) == expected
    assert found == set(range(1, 9))


def test_damage_in_the_middle_of_a_jpeg_is_found(tmp_path, files):
    assert [form.name for form, _, contents, *_ in files if damage(contents)] == []
    for folder in ("images", "labels"):
        (tmp_path / folder / "train").mkdir(parents=True)
    (tmp_path / "names.txt").write_text("a\nb\n")
    rng = np.random.default_rng(0)
    path = tmp_path / "images/train/a.jpg"
    Image.fromarray(rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)).save(path)
    Image.new("L", (160, 120)).save(tmp_path / "labels/train/a.png")
    contents = bytearray(path.read_bytes())
    middle = len(contents) // 2
    contents[middle : middle + 300] = bytes(300)
    path.write_bytes(contents)
    data = {"dataset": "custom", "root": str(tmp_path), "class_names": "names.txt"}
    (report,) = check_splits(Config.model_validate({"data": data}).data, ["train"])
    problem = report.problems[0]
    assert problem.what == "1 image damaged: from some place on its pixels are grey or wrong"
    assert re.search(r"a\.jpg: \w+", problem.where[0])


def test_cmyk_is_refused_in_a_graph_with_what_to_do(files):
    contents = next(contents for form, _, contents, *_ in files if form.name == "JPEG, CMYK")
    with pytest.raises(tf.errors.InvalidArgumentError, match="image 3 is a CMYK JPEG.*save it as RGB"):
        decode_image(tf.constant(contents), "image 3")
    deep = png(np.zeros((2, 2), int), 16, headers.GREY, [(b"tRNS", b"\0\0")])
    with pytest.raises(tf.errors.InvalidArgumentError, match="image 3 is a 16-bit PNG with a transparent colour: save"):
        decode_image(tf.constant(deep), "image 3")


def test_the_documented_table_is_what_the_readers_do():
    assert DOCUMENT.read_text(encoding="utf-8") == document_text(), "run python tests/data/image_forms.py"
