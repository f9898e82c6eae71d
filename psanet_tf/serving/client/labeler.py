"""A served model in the place of a local one, for `psanet predict`."""

import os
from collections.abc import Sequence

import numpy as np

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.serving.client.client import Client


class ServedLabeler:
    """Labels images through a server.

    Args:
        url, token, ca: as of `Client`.

    Attributes:
        info: DatasetInfo of the model's classes.
        protocol, base_size: as of `ModelMetadata`.

    Raises:
        OSError: no server answers there, or it refuses.
        ValueError: not such an address, or not with a token.
    """

    def __init__(self, url: str | Sequence[str], token: str | None = None, ca: str | os.PathLike | None = None) -> None:
        self._name = url if isinstance(url, str) else ", ".join(url)
        self._client = Client(url, token=token, ca=ca)
        metadata = self._ask(self._client.metadata)
        self.info = metadata.dataset_info()
        self.protocol, self.base_size = metadata.protocol, metadata.base_size

    def labels(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W] for an image [H, W, C] as `info.images` says."""
        return self._ask(self._client.labels, image)

    def _ask(self, function, *arguments):
        try:
            return function(*arguments)
        except ServingError as error:
            raise OSError(f"{self._name}: {error}") from error
