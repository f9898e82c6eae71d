"""Records of a few small images, and the Garden's trainer around a small network."""

import numpy as np
import pytest
from PIL import Image

CLASSES = 10  # of the scenes
SIZE = (40, 56)


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    """A folder with TFRecords of the splits training (5 images) and validation (3), and the arrays in them."""
    from psanet_tf.config import DataSection
    from psanet_tf.data.catalog import dataset_info
    from psanet_tf.data.record_writer import write_records

    assert dataset_info("scenes").num_classes == CLASSES
    root, folder = tmp_path_factory.mktemp("scenes"), tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("training", 5), ("validation", 3)):
        pairs = []
        for index in range(count):
            labels = np.kron(rng.integers(0, CLASSES + 1, (5, 7)), np.ones((8, 8), int)).astype(np.uint8)
            image = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
            for name, array in (("images", image), ("annotations", labels)):
                path = root / name / split / f"image_{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
            # 0 is no class in the files, 255 in the records.
            pairs.append((image, labels - np.uint8(1)))
        arrays[split] = pairs
        write_records(DataSection(dataset="scenes", root=str(root)), split, folder, examples_per_shard=3)
    return folder, arrays
