"""How much memory and time a scene of 50,000 x 50,000 pixels takes (docs/rasters.md).

    python benchmarks/rasters.py --classes 150 --rows 1000 --columns 9000

writes a scene of random bytes in its first rows and columns, nodata elsewhere, and labels it by crops of 465 x 465 with
a network of random weights. `--network psanet50` takes the paper's, `--network none` one that sees single pixels, so
that what is measured is all but the network.
"""

import argparse
import resource
import tempfile
import time
import types
from pathlib import Path

import numpy as np
import rasterio
import tensorflow as tf

from psanet_cli.app import keep_memory
from psanet_tf import PSANet, Segmenter
from psanet_tf.data.catalog import numbered_classes
from psanet_tf.inference.inputs import InputFile
from psanet_tf.inference.raster_files import label_rasters
from psanet_tf.inference.sliding_window import SlidingWindow

_CROP = (465, 465)


def write_scene(path: Path, side: int, filled: tuple[int, int]) -> None:
    """A tiled GeoTIFF of three bands with values in its first rows and columns (`filled`)."""
    form = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "lzw"}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.1, 0, 500_000, 0, -0.1, 5_800_000)}
    generator, (last_row, columns) = np.random.default_rng(0), filled
    with rasterio.open(path, "w", width=side, height=side, count=3, dtype="uint8", nodata=0, SPARSE_OK=True,
                       BIGTIFF="YES", **form, **place) as file:  # fmt: skip
        for row in range(0, last_row, 512):
            rows = min(512, last_row - row)
            block = np.kron(generator.integers(1, 256, (3, 64, columns // 8 + 1), "uint8"), np.ones((8, 8), "uint8"))
            file.write(block[:, :rows, :columns], window=rasterio.windows.Window(0, row, columns, rows))


def segmenter_of(network: str, classes: int, folder: Path):
    if network == "none":
        weights = np.random.default_rng(0).normal(size=(3, classes)).astype("float32")
        predict = tf.function(
            lambda crops: tf.tensordot(crops, weights, 1), [tf.TensorSpec([None, *_CROP, 3], tf.float32)]
        )
        info = numbered_classes(classes)
        (folder / "none").write_bytes(b"")
        return types.SimpleNamespace(
            labelers=(SlidingWindow(predict, classes, _CROP),), info=info, images=info.images,
            classes=info.class_names, temperature=1.0, path=folder / "none",
        )  # fmt: skip
    small = {} if network == "psanet50" else {"blocks": (1, 1, 1, 1), "width": 8}
    return Segmenter(PSANet(classes, input_shape=(*_CROP, 3), **small), evaluate={"base_size": 465})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=1_000, help="with an image")
    parser.add_argument("--columns", type=int, default=9_000, help="with an image")
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--network", choices=["none", "small", "psanet50"], default="small")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scene(folder / "scene.tif", arguments.side, (arguments.rows, arguments.columns))
        print(f"scene: {(folder / 'scene.tif').stat().st_size / 1e6:.0f} MB", flush=True)
        segmenter = segmenter_of(arguments.network, arguments.classes, folder)
        start = time.monotonic()
        failures = label_rasters(segmenter, [InputFile(folder / "scene.tif", "scene")], folder / "out", confidence=True)
        assert not failures, failures
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{arguments}: {time.monotonic() - start:.0f} s, at most {peak:.2f} GB of memory")


if __name__ == "__main__":
    keep_memory()
    main()
