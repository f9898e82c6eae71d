"""A small scenes dataset on disk and configurations for it."""

import pytest

from psanet_tf.config import Config
from psanet_tf.data.scene_files import write_scenes


@pytest.fixture(scope="session")
def scenes_root(tmp_path_factory):
    """11 training and 5 validation images; not to be changed."""
    return write_scenes(tmp_path_factory.mktemp("scenes") / "data", train=11, validation=5)


@pytest.fixture(scope="session")
def scenes_config(scenes_root):
    """`scenes_config(seed=1, crop_size=(97, 97))` -> Config with full augmentation on the small dataset."""

    def make(seed=0, **data):
        data = {"dataset": "scenes", "root": str(scenes_root), "crop_size": (97, 97)} | data
        return Config.model_validate({"data": data, "train": {"seed": seed}})

    return make
