"""Images that are in two splits, by what they show: under whatever names, in whatever lossless form."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from psanet_tf.data.findings import Finding, counted


def pixel_digest(image: np.ndarray) -> bytes:
    """Of an array's shape and values: equal of equal images, whatever their files are.

    Args:
        image: [H, W, C].
    """
    digest = hashlib.blake2b(repr((image.shape, image.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image))
    return digest.digest()


def shared_images(
    split: str, digests: Mapping[Path, bytes], other_split: str, other_digests: Mapping[Path, bytes]
) -> Finding | None:
    """The finding that images of one split are in another, too; None if none are.

    Args:
        split, other_split: names.
        digests, other_digests: {path of the image: `pixel_digest`}.
    """
    others = {}
    for path, digest in other_digests.items():
        others.setdefault(digest, path)
    where = []
    for path, digest in sorted(digests.items()):
        if digest in others:
            same_file = path.resolve() in (others[digest], others[digest].resolve())
            where.append(str(path) if same_file else f"{path} (as {others[digest]})")
    if not where:
        return None
    what = f"{counted(len(where), 'image')} of {split!r} also in {other_split!r}"
    advice = "scores of images that were trained on say nothing about new ones: keep the splits apart"
    return Finding(what, advice, tuple(where))
