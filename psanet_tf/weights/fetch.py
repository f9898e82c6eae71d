"""From the name or the address of weights to a file on this machine."""

import hashlib
import os
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from psanet_tf.weights.download import download, weights_folder
from psanet_tf.weights.registry import find_published, is_published_name


def is_remote(source: str | os.PathLike) -> bool:
    """Whether `source` is a name of published weights or a URL, and no path."""
    source = os.fspath(source)
    return source.startswith(("http://", "https://")) or (is_published_name(source) and not Path(source).exists())


def cached_file(source: str) -> Path:
    """Where `fetch_weights` keeps the file of a name or URL.

    Raises:
        ValueError: no published weights have that name, or a URL without the name of a file.
        OSError: there is no folder for the cache.
    """
    if not source.startswith(("http://", "https://")):
        entry = find_published(source)
        return weights_folder() / entry.name.partition("/")[0] / entry.file_name
    name = PurePosixPath(urlsplit(source).path).name
    if not name:
        raise ValueError(f"{source} ends in no name of a file")
    # Files of one name may lie on several servers.
    return weights_folder() / "urls" / hashlib.sha256(source.encode()).hexdigest()[:12] / name


def fetch_weights(source: str) -> Path:
    """The file of published weights, or of a URL; from the cache if it has been fetched before.

    Args:
        source: a name that `psanet weights list` shows, or a URL (of which no checksum is known).

    Returns:
        Path of the file.

    Raises:
        ValueError: no published weights have that name; the file that came is not the published one.
        OSError: it cannot be fetched; the message says where to put it instead.

    Example:
        >>> fetch_weights("torchvision/resnet50_imagenet1k_v1").name
        'resnet50-0676ba61.pth'
    """
    if source.startswith(("http://", "https://")):
        return download(source, cached_file(source))
    entry = find_published(source)
    return download(entry.url, cached_file(source), entry.checksum)
