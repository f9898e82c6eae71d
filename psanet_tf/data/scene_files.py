"""The synthetic scenes as datasets on disk, in ADE20K's layout.

JPEG in ``images/{training,validation}``, PNG in ``annotations/{training,validation}`` with 0 = no class and
value = train id + 1.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.data import scenes, signposts
from psanet_tf.folders import atomic_folder
from psanet_tf.progress import track

# `data.dataset` -> training and validation images that are written if nothing else is said.
SCENES = {"scenes": (600, 100), "signposts": (1600, 100)}

_JPEG_QUALITY = 95


def write_scenes(
    root: str | os.PathLike,
    train: int | None = None,
    validation: int | None = None,
    size: int | None = None,
    seed: int = 0,
    kind: str = "scenes",
) -> Path:
    """Writes one of the datasets; the folder appears whole or not at all.

    Args:
        root: the folder to make.
        train: number of training images; default: 600 scenes, 1600 signposts.
        validation: number of validation images; default: 100.
        size: of scenes, rows and columns of an image, at least 161; default: 161. Signposts have one size.
        seed: same seed, same images; an image does not depend on how many there are.
        kind: ``"scenes"`` (`psanet_tf.data.scenes`) or ``"signposts"`` (`psanet_tf.data.signposts`), the name of the
            dataset in a configuration.

    Returns:
        Path of the folder.

    Raises:
        FileExistsError: `root` exists already.
        ValueError: another kind, too small a size or one for signposts, fewer than one image, a negative seed.
    """
    if kind not in SCENES:
        raise ValueError(f"kind: must be {' or '.join(SCENES)}, got {kind!r}")
    counts = [
        default if given is None else given for given, default in zip((train, validation), SCENES[kind], strict=True)
    ]
    for name, count in zip(("train", "validation"), counts, strict=True):
        if count < 1:
            raise ValueError(f"{name}: needs at least one image, got {count}")
    if kind == "signposts" and size is not None:
        raise ValueError(f"size: signposts are {signposts.HEIGHT} x {signposts.WIDTH} pixels, leave it out; got {size}")
    size = scenes.MIN_SIZE if size is None else size
    with atomic_folder(root) as temporary:
        splits = ("training", "validation")
        jobs = [(split, index) for split, count in zip(splits, counts, strict=True) for index in range(count)]
        for split in splits:
            (temporary / "images" / split).mkdir(parents=True)
            (temporary / "annotations" / split).mkdir(parents=True)
        for split, index in track(jobs, f"writing {kind}"):
            if kind == "scenes":
                scene = scenes.make_scene(seed, split, index, size)
            else:
                scene = signposts.make_signpost_scene(seed, split, index)
            name = f"scene_{split}_{index:06d}"
            # No chroma subsampling: a lamp's colour must not spread over 16 pixels.
            Image.fromarray(scene.image).save(
                temporary / "images" / split / f"{name}.jpg", quality=_JPEG_QUALITY, subsampling=0
            )
            Image.fromarray(scene.label + np.uint8(1)).save(temporary / "annotations" / split / f"{name}.png")
    return Path(root)
