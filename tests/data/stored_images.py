"""Small datasets and files of images that are no photographs, for tests of whatever reads them."""

import io

import numpy as np
import tensorflow as tf
import tifffile
from PIL import Image

CLASSES = ("low", "middle", "high")
LARGEST = 4000  # of the values of 16 bits: more than 8 bits, as of a sensor of 12


def png(values):
    """Bytes of a PNG of [H, W, C], uint8 or uint16, C up to 4."""
    return tf.io.encode_png(values).numpy()


def tiff(values, **options):
    """Bytes of a TIFF of [H, W, C]."""
    stream = io.BytesIO()
    options = {"photometric": "minisblack", "planarconfig": "contig" if values.shape[2] > 1 else None} | options
    tifffile.imwrite(stream, values if values.shape[2] > 1 else values[..., 0], **options)
    return stream.getvalue()


def npy(values, **options):
    """Bytes of what numpy.save writes."""
    stream = io.BytesIO()
    np.save(stream, values, **options)
    return stream.getvalue()


def write_dataset(root, channels, dtype, suffix, encode, splits=(("train", 6), ("val", 2)), size=(40, 48)):
    """A dataset of three classes of brightness, in the layout of ``dataset: custom``.

    Args:
        root: folder.
        channels, dtype: of the images.
        suffix: of their names.
        encode: [H, W, C] -> bytes.
        splits: (name, number of images) each.
        size: rows and columns.

    Returns:
        {name: (image, labels)} by split: {split: {...}}.
    """
    rng = np.random.default_rng(7)
    largest = 255 if dtype == "uint8" else LARGEST
    written = {}
    for split, count in splits:
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        written[split] = {}
        for index in range(count):
            label = np.kron(rng.integers(0, len(CLASSES), (5, 6)), np.ones((8, 8))).astype(np.uint8)
            label = label[: size[0], : size[1]]
            gain = np.linspace(0.2, 0.3, channels)
            image = (label[..., None] + 1) * gain * largest + rng.normal(0, 0.02 * largest, (*label.shape, channels))
            image = np.clip(image, 0, largest).astype(dtype)
            (root / "images" / split / f"field_{index}{suffix}").write_bytes(encode(image))
            Image.fromarray(label).save(root / "labels" / split / f"field_{index}.png")
            written[split][f"field_{index}"] = image, label
    (root / "names.txt").write_text("\n".join(CLASSES))
    return written


def data_section(root, channels, dtype, **more):
    """The section `data:` of such a dataset, as a dict."""
    keys = {"dataset": "custom", "root": str(root), "class_names": "names.txt", "crop_size": (33, 33)}
    return keys | {"channels": channels, "dtype": dtype} | more
