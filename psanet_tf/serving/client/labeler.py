"""A served model in the place of a local one, for `psanet predict`."""

import numpy as np

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.serving.client.client import Client


class ServedLabeler:
    """Labels images through a server.

    Args:
        url: as of `Client`.

    Attributes:
        info: DatasetInfo of the model's classes.
        protocol, base_size: as of `ModelMetadata`.

    Raises:
        OSError: no server answers there, or it refuses.
        ValueError: not such an address.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = Client(url)
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
            raise OSError(f"{self._url}: {error}") from error
