"""Which images are trained on, and which validated with."""

from collections.abc import Sequence

import numpy as np

from psanet_tf.data.importing.source import SPLITS, SourceImage


def with_splits(images: Sequence[SourceImage], val_share: float | None, seed: int) -> dict[str, list[SourceImage]]:
    """Images by split: as the source has them, or drawn.

    Args:
        images: of the source.
        val_share: share of the images without a split, or of the training images, that become validation images where
            the source has none.
        seed: of the draw; the same images and seed give the same split.

    Returns:
        {"train": [...], "val": [...]}, and "test" where the source has one.

    Raises:
        ValueError: a share although the source has its own split, none although it has no validation images, or too few
            images for both.
    """
    splits = {split: [image for image in images if image.split == split] for split in SPLITS}
    undecided = [image for image in images if image.split is None]
    if splits["val"]:
        if val_share is not None:
            raise ValueError(
                f"--val {val_share}: the source has {len(splits['val'])} validation images of its own (a folder or "
                "list called val): leave --val out"
            )
        if undecided:
            raise ValueError(
                f"{len(undecided)} images lie in no folder of a split (first: {undecided[0].path}), others in train, "
                "val or test: move them into one"
            )
    else:
        if val_share is None:
            raise ValueError(
                "the source has no validation images (no folder called val): --val 0.1 draws a tenth of the images"
            )
        drawn_from = splits["train"] + undecided
        if len(drawn_from) < 2:
            raise ValueError(f"{len(drawn_from)} images are too few for training and validation: at least 2 are needed")
        count = min(max(1, round(val_share * len(drawn_from))), len(drawn_from) - 1)
        drawn_from.sort(key=lambda image: image.name)
        drawn = set(np.random.default_rng(seed).permutation(len(drawn_from))[:count].tolist())
        splits["val"] = [image for index, image in enumerate(drawn_from) if index in drawn]
        splits["train"] = [image for index, image in enumerate(drawn_from) if index not in drawn]
    if not splits["train"]:
        raise ValueError("the source has no training images: a folder called train must hold them")
    return {split: found for split, found in splits.items() if found or split != "test"}
