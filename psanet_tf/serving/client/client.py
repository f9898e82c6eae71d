"""A client for a served model, over either protocol; works against TensorFlow Serving and `psanet serve`."""

import io
import itertools
import math
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import Self

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.data.pixels import decode_image, decode_label, is_read_by_graph
from psanet_tf.data.plain_copies import encoded_plainly
from psanet_tf.data.stored_values import image_size
from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.serving.client.tiles import TILE_SIZE, label_by_tiles
from psanet_tf.serving.client.transports import connect

# Below what servers take in one request (32 MB here, 4 MB is gRPC's default and to be raised there).
_MAX_UPLOAD_BYTES = 24 * 2**20
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


class Client:
    """Images in, labels out.

    Args:
        url: ``grpc://host:8500/MODEL`` or ``http://host:8501/MODEL``, encrypted ``grpcs://`` or ``https://``, with
            ``/versions/3`` or ``/labels/stable`` behind it for one version; also TensorFlow Serving's own
            ``http://host:8501/v1/models/MODEL``, which may have a path before it. Several of them, for servers of the
            same model: calls go to each in turn.
        timeout: seconds for one call, its repetitions included.
        retries: how often a call is repeated that the server answered with UNAVAILABLE (it is starting, or has
            too much to do), with growing pauses, and at the next of several addresses; no other error is tried again.
        token: sent with every request as ``Authorization: Bearer TOKEN``; never unencrypted, but to this machine.
        ca: PEM file of the authorities that a server's certificate may be signed by; default: the system's.

    Raises:
        ValueError: not such an address; none at all; a token for an unencrypted one.
        OSError: `ca` cannot be read.
        ImportError: a package of the extra ``serving`` is not installed.

    Example:
        >>> client = Client("grpc://127.0.0.1:8500/psanet")
        >>> labels = client.labels("street.jpg")                     # uint8 [H, W]
        >>> names = client.metadata().class_names
    """

    def __init__(
        self,
        url: str | Sequence[str],
        timeout: float = 60.0,
        retries: int = 5,
        token: str | None = None,
        ca: str | os.PathLike | None = None,
    ) -> None:
        if not timeout > 0 or retries < 0:
            raise ValueError(f"timeout must be positive and retries not negative, got {timeout} and {retries}")
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ValueError("no address of a served model was given")
        self._transports = [connect(each, token, ca) for each in urls]
        self._turns = itertools.cycle(self._transports)
        self._timeout = timeout
        self._retries = retries
        self._metadata = None

    def predict(self, signature: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Calls a signature with arrays (strings as object arrays of bytes); returns a dict of arrays.

        Raises:
            ServingError: with the server's code and message.
        """
        end = time.monotonic() + self._timeout
        pause = _FIRST_PAUSE
        for attempt in range(self._retries + 1):
            try:
                return next(self._turns).predict(signature, inputs, max(0.001, end - time.monotonic()))
            except ServingError as error:
                last = attempt == self._retries or time.monotonic() + pause > end
                if error.code != "UNAVAILABLE" or last:
                    raise
            # Clients that were refused together should not come back together.
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("not reached")

    def metadata(self) -> ModelMetadata:
        """`ModelMetadata`, asked for once."""
        if self._metadata is None:
            values = self.predict("metadata", keys=_strings([b"all"]))["values"]
            self._metadata = ModelMetadata.from_json(_text(values[0]))
        return self._metadata

    def label_images(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels and scores of images that have the network's size.

        Args:
            images: [B, H, W, C] of the model's dtype; photographs uint8 [B, H, W, 3], RGB.

        Returns:
            (labels, scores), both uint8 [B, H, W]; a score of 255 is certain.
        """
        answer = self.predict("serving_default", images=np.asarray(images))
        return answer["labels"], answer["scores"]

    def labels(self, image: np.ndarray | bytes | str | os.PathLike) -> np.ndarray:
        """The class of every pixel of an image of any size.

        Args:
            image: uint8 [H, W, 3] (RGB), or [H, W, C] of the model's dtype; the bytes of an image file, or its path. An
                image with more pixels or bytes than the server takes is cut into overlapping tiles, each labelled by
                itself; but not for a model of MMSegmentation's protocol, whose scale is that of the image as a whole.

        Returns:
            uint8 [H, W], of the image as it is to be seen (turned as its orientation tag says).

        Raises:
            ServingError: with the server's code and message.
            ValueError: not an image; or one too large for a request to a model of MMSegmentation's protocol.
            OSError: a file that cannot be read.
        """
        metadata = self.metadata()
        images = metadata.images
        given = _given(image, images)
        height, width = given.size
        has, advice = f"{height} x {width} pixels", "reduce the image"
        if height * width <= metadata.max_pixels:
            # Not before: to encode what is too large for a request, and goes by tiles, would take long.
            data = given.encoded(images)
            if len(data) <= _MAX_UPLOAD_BYTES:
                return self._label_bytes(data)
            has += f" and {len(data)} bytes"
            advice += ", or give it as a JPEG file"
        if metadata.protocol == "mmseg":
            raise ValueError(
                f"the image has {has}, a request may have {metadata.max_pixels} pixels and {_MAX_UPLOAD_BYTES} bytes; "
                f"the model fits an image as a whole into {list(metadata.scale)} pixels, so that tiles would be seen "
                f"at another scale: {advice}"
            )
        # Images that are no photographs are sent as they are, not compressed.
        tile_size = math.isqrt(min(TILE_SIZE**2, metadata.max_pixels, _MAX_UPLOAD_BYTES // images.bytes_per_pixel))
        return label_by_tiles(
            given.decoded(images),
            lambda tile: self._label_bytes(encoded_plainly(tile, images)),
            tile_size,
        )

    def attention(
        self, image: np.ndarray | bytes | str | os.PathLike, points: Sequence[tuple[float, float]]
    ) -> dict[str, np.ndarray]:
        """Attention maps at points of an image; see the signature `attention` of `ServingModule`.

        Args:
            image: as for `labels`.
            points: sequence of (x, y) in pixels.

        Returns:
            dict with "collect" and "distribute" float32 [P, h, w] (those that the network has) and
            "image_box" float32 [4].
        """
        images = self.metadata().images
        data = _given(image, images).encoded(images)
        points = np.asarray(points, np.float32).reshape(1, -1, 2)
        answer = self.predict("attention", image_bytes=_strings([data]), points=points)
        return {name: array[0] for name, array in answer.items()}

    def close(self) -> None:
        for transport in self._transports:
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _label_bytes(self, data):
        answer = self.predict("predict_bytes", image_bytes=_strings([data]))
        return decode_label(answer["label_bytes"][0], "the answer")


class _Given(NamedTuple):
    """An image in the form in which it was given: a file that the graph of an exported model decodes, or pixels.

    Attributes:
        data: bytes of the file, or None.
        pixels: [H, W, C], or None.
        size: (H, W); of a file not yet turned as its orientation tag says.
        name: for messages.
    """

    data: bytes | None
    pixels: np.ndarray | None
    size: tuple[int, int]
    name: str

    def encoded(self, images: ImageFormat) -> bytes:
        """A file that the graph decodes."""
        return encoded_plainly(self.pixels, images) if self.data is None else self.data

    def decoded(self, images: ImageFormat) -> np.ndarray:
        """[H, W, C]."""
        return decode_image(self.data, self.name, images) if self.pixels is None else self.pixels


def _given(image, images=PHOTOGRAPHS):
    name = "the image" if isinstance(image, np.ndarray | bytes) else str(image)
    if isinstance(image, np.ndarray):
        pixels = images.checked(image)
        return _Given(None, pixels, pixels.shape[:2], name)
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    if is_read_by_graph(data, images):
        size = image_size(io.BytesIO(data))
        if size is None:
            raise ValueError(f"{name} is not an image that can be read")
        return _Given(data, None, size, name)
    pixels = decode_image(data, name, images)
    return _Given(None, pixels, pixels.shape[:2], name)


def _strings(values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
