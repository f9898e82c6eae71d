"""Images of any number of channels and bits: all readers see the values that a file holds, or refuse it by name."""

import io
import itertools
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from image_forms import exif
from image_forms import png as png_of_kind
from PIL import Image
from stored_images import npy, png, tiff

from psanet_tf.data import headers
from psanet_tf.data.decoding import decode_image as decode_in_graph
from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.data.pixels import decode_image, is_read_by_graph
from psanet_tf.data.plain_copies import graph_readable
from psanet_tf.data.readers import read_image
from psanet_tf.data.stored_values import image_size, npy_bytes
from psanet_tf.data.turning import turned
from psanet_tf.export.graph.checking import check_request


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PSANET_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "image_cache"))


def values_of(images, size=(5, 7)):
    rng = np.random.default_rng(images.channels)
    shape = (*size, images.channels)
    if images.dtype == "float32":
        return rng.normal(0, 1e4, shape).astype(np.float32)
    return rng.integers(0, np.iinfo(images.dtype).max + 1, shape).astype(images.dtype)


def formats():
    for dtype in ("uint8", "uint16", "float32"):
        for channels in (1, 2, 3, 4, 12):
            if (channels, dtype) != (3, "uint8"):
                yield ImageFormat(channels, dtype)


def files_of(images, values):
    """{name: bytes}: the same values in every form."""
    files = {
        "npy": npy(values),
        "npy, Fortran order": npy(np.asfortranarray(values)),
        "npy, big-endian": npy(values.astype(values.dtype.newbyteorder(">"))),
        "tiff": tiff(values),
        "tiff, deflate, big-endian": tiff(values, compression="zlib", byteorder=">"),
        "BigTIFF in tiles": tiff(values, bigtiff=True, tile=(16, 16)),
        "tiff, LZW and predictor": tiff(values, compression="lzw", predictor=images.dtype != "float32"),
    }
    if images.channels == 1:
        files["npy, [H, W]"] = npy(values[..., 0])
    else:
        planes = np.moveaxis(values, -1, 0)
        files["tiff, planes"] = tiff(planes, planarconfig="separate")
        files["tiff, pages"] = tiff(planes[..., None], photometric="minisblack", planarconfig=None, metadata=None)
    if images.channels <= 4 and images.dtype != "float32":
        files["png"] = png(values)
    return files


@pytest.mark.parametrize("images", formats(), ids=lambda images: images.in_words())
def test_all_readers_see_the_values_that_a_file_holds(images, tmp_path):
    values = values_of(images)
    decode = tf.function(lambda data: decode_in_graph(data, images=images), [tf.TensorSpec([], tf.string)])
    for name, contents in files_of(images, values).items():
        if name == "tiff, pages":
            path = tmp_path / "pages.tif"
            with tifffile.TiffWriter(path) as writer:
                for plane in np.moveaxis(values, -1, 0):
                    writer.write(plane, photometric="minisblack", metadata=None)
            contents = path.read_bytes()
        path = tmp_path / f"file{'.npy' if 'npy' in name else ''}"
        path.write_bytes(contents)
        read = read_image(path, images)
        assert read.dtype == images.dtype, name
        assert np.array_equal(read, values), name
        assert image_size(path) == (5, 7), name
        plain = name in ("npy", "npy, [H, W]", "png") or (name == "npy, big-endian" and images.dtype == "uint8")
        assert is_read_by_graph(contents, images) == plain, name
        (place,) = graph_readable([path], images)
        assert (place == str(path)) == plain, name
        in_graph = decode(tf.io.read_file(place))
        assert in_graph.dtype == images.dtype
        assert np.array_equal(in_graph, values), name
        path.unlink()


def test_a_grey_jpeg_is_read_alike_by_all():
    images = ImageFormat(1)
    stream = tf.io.encode_jpeg(values_of(images, (16, 24))).numpy()
    expected = np.asarray(Image.open(io.BytesIO(stream)))[..., None]
    assert np.array_equal(decode_image(stream, "x", images), expected)
    assert np.array_equal(decode_in_graph(tf.constant(stream), images=images), expected)


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_tags_are_followed(orientation, tmp_path):
    images = ImageFormat(1, "uint16")
    values = values_of(images)
    expected = turned(values, orientation)
    tagged = png_of_kind(values[..., 0].astype(int), 16, headers.GREY, [(b"eXIf", exif(orientation, "<"))])
    assert np.array_equal(decode_image(tagged, "x", images), expected)
    assert np.array_equal(decode_in_graph(tf.constant(tagged), images=images), expected)
    tagged = tiff(values, extratags=[(headers.ORIENTATION_TAG, "H", 1, orientation)])
    assert np.array_equal(decode_image(tagged, "x", images), expected)


WIDE, GREY, FLOAT = ImageFormat(12, "uint16"), ImageFormat(1, "uint16"), ImageFormat(2, "float32")
ROOM = np.ones((5, 7, 4), np.uint16)
NOISE = values_of(ImageFormat(4, "uint16"), (50, 70))
HOLES = np.where(np.arange(70).reshape(5, 7, 2) % 35 == 1, np.nan, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("contents", "images", "message"),
    [
        (npy(ROOM), WIDE, "f holds 4 channels of uint16, wanted are 12 channels of uint16: set data.channels=4 if all"),
        (tiff(ROOM), GREY, "f holds 4 channels of uint16, wanted are 1 channel of uint16: set data.channels=4 if all"),
        (png(ROOM[..., :1].astype(np.uint8)), GREY,
         "f holds values of uint8, wanted is uint16: all images of a dataset need one dtype.*set data.dtype=uint8 if"),
        (npy(ROOM.astype(np.int32)[..., :1]), GREY, r"f holds values of int32, .*convert them to uint8.*array.astype"),
        (png(ROOM.astype(np.uint8)), GREY,
         "f holds 4 channels of uint8, wanted are 1 channel of uint16: set data.channels=4 and set data.dtype=uint8"),
        (npy(HOLES), FLOAT, "f holds 2 values of 70 that are NaN or infinite: put a number in their place"),
        (npy(np.ones(3)), FLOAT, r"f: an image must be \[H, W\] or \[H, W, C\], this array is \[3\]"),
        (npy(np.ones((2, 2, 2), complex)), FLOAT, "f: an image must hold numbers, this array is of complex128"),
        (npy(np.ones((2, 0, 2), np.float32)), FLOAT, r"f holds no pixels: its shape is \[2, 0, 2\]"),
        (npy(ROOM)[:-3], ImageFormat(4, "uint16"), "f is not a readable .npy file"),
        (npy(np.array([{}, {}])), FLOAT, "f is not a readable .npy file"),
        (png(NOISE)[:-40], ImageFormat(4, "uint16"), "f is not a readable image"),
        (tiff(NOISE)[:-300], ImageFormat(4, "uint16"), "f is not a readable image"),
        (b"II*\0" + bytes(30), GREY, "f is not a readable image"),
        (b"\xff\xd8\xffrest", GREY, "f is not a readable image"),
        (b"GIF89a", GREY, r"f is no PNG, TIFF, .npy or JPEG file.*\(1 channel of uint16\): convert it"),
        (png_of_kind(np.zeros((2, 2), int), 4, headers.GREY), ImageFormat(1), "f: a PNG of 4 bits, wanted are 8 or 16"),
        (png_of_kind(np.zeros((2, 2), int), 16, headers.GREY, [(b"tRNS", b"\0\0")]), GREY,
         "f: a PNG with a transparent colour, which is no value: save it with its values as uint16"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_what_a_file_holds_else_is_named_with_what_to_set(contents, images, message):
    with pytest.raises(ValueError, match=message):
        decode_image(contents, "f", images)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_in_graph(tf.constant(contents), "f", images)


def test_palettes_and_odd_depths_of_tiff_and_png_are_refused(tmp_path):
    for suffix in ("png", "tif"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P").save(tmp_path / f"a.{suffix}")
        with pytest.raises(ValueError, match=f"a palette {suffix.upper()[:3]}.*numbers of colours: save it with its"):
            read_image(tmp_path / f"a.{suffix}", ImageFormat(1))
    Image.new("1", (9, 4)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match=r"b.tif is not a readable image: a TIFF of 1 bits"):
        read_image(tmp_path / "b.tif", ImageFormat(1))
    Image.new("CMYK", (9, 4)).save(tmp_path / "c.jpg")
    with pytest.raises(ValueError, match="c.jpg is a CMYK JPEG, which differs from decoder to decoder"):
        read_image(tmp_path / "c.jpg", ImageFormat(4))


def test_a_graph_says_what_it_takes():
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"image 3 must be a PNG of 16 bits and 1 channels or an .npy file of uint16 \[H, W, 1\] in C order",
    ):
        decode_in_graph(tf.constant(b"nothing"), "image 3", GREY)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image 3 must be an .npy file.*it says .*\(5, 7, 4\)"):
        decode_in_graph(tf.constant(npy(ROOM)), "image 3", WIDE)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image 3 is an .npy file that is cut short"):
        decode_in_graph(tf.constant(npy(ROOM)[:-3]), "image 3", ImageFormat(4, "uint16"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="image 3 must be a PNG of 16 bits and 4 channels"):
        decode_in_graph(tf.constant(png(ROOM.astype(np.uint8))), "image 3", ImageFormat(4, "uint16"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="image 3 holds values that are NaN or infinite"):
        decode_in_graph(tf.constant(npy(HOLES)), "image 3", FLOAT)


def decode_as_servers(images):
    """A function of the bytes of a file of at most 1000 pixels, with what an exported graph does to them."""

    def decode(data):
        return decode_in_graph(check_request(data[None], 1, 1000, images)[0], "image_bytes[0]", images)

    return tf.function(decode, [tf.TensorSpec([], tf.string)])


def test_damaged_files_are_read_alike_or_refused_in_words():
    images = ImageFormat(2, "uint16")
    decode = decode_as_servers(images)
    rng = np.random.default_rng(0)
    whole = [encode(values_of(images)) for encode in (npy, png)]
    refused = 0
    for index in range(300):
        damaged = bytearray(whole[index % 2])
        for place in rng.integers(6, 140, rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        contents = bytes(damaged[: rng.integers(7, len(damaged))] if index % 5 == 0 else damaged)
        try:
            read = decode_image(contents, "f", images)
        except ValueError:
            read = None
        image_size(io.BytesIO(contents))
        try:
            in_graph = decode(contents).numpy()
        except tf.errors.InvalidArgumentError as error:
            refused += 1
            assert error.message
        else:
            assert np.array_equal(in_graph, read)
    assert 100 < refused < 300
    huge = b"\x93NUMPY\1\0\x60\0{'descr': '<u2', 'fortran_order': False, 'shape': (4294967296, 4294967296, 2), }".ljust(
        106
    )
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"image_bytes\[0\] has 2147483647 rows x 2147483647 columns; 1 to 1000"
    ):
        decode(huge)


@pytest.mark.parametrize("images", [PHOTOGRAPHS, GREY])
def test_a_file_shorter_than_its_header_is_refused_in_words(images):
    for length in (8, 30, 40):
        contents = b"\x89PNG\r\n\x1a\n".ljust(length, b"\x90")
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"image_bytes\[0\] (is no JPEG or PNG image|must be a PNG of 16)"
        ):
            decode_as_servers(images)(contents)


def test_photographs_may_be_arrays_and_say_what_a_strange_tiff_needs(tmp_path):
    rgb = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    (tmp_path / "a.npy").write_bytes(npy_bytes(rgb))
    assert np.array_equal(read_image(tmp_path / "a.npy"), rgb)
    (copy,) = graph_readable([tmp_path / "a.npy"])
    assert np.array_equal(decode_in_graph(tf.io.read_file(copy)), rgb)
    (tmp_path / "b.tif").write_bytes(tiff(np.ones((4, 5, 12), np.uint16)))
    with pytest.raises(
        ValueError, match=re.escape("b.tif is a TIFF that is no photograph") + ".*set data.channels and"
    ):
        read_image(tmp_path / "b.tif")


def test_without_tifffile_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImportError, match=r"f.tif: reading a TIFF file .* needs tifffile.*'psanet-tf\[tiff\]'"):
        decode_image(b"II*\0" + bytes(30), "f.tif", GREY)
