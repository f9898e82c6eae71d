"""Client: addresses, repetitions, images of every kind, tiles."""

import dataclasses
import functools
import io
import itertools

import numpy as np
import pytest
import requests
import tensorflow as tf
from PIL import Image

from psanet_tf.data.plain_copies import encoded_plainly
from psanet_tf.export.verification import made_image
from psanet_tf.runtimes.errors import ServingError
from psanet_tf.serving.client.client import Client
from psanet_tf.serving.client.tiles import label_by_tiles
from psanet_tf.serving.client.transports import ModelAddress
from psanet_tf.serving.server.server import Server


@pytest.mark.parametrize(
    "url",
    [
        "psanet",
        "ftp://host:1/psanet",
        "grpc://host:8500",
        "grpc://host/psanet",
        "http://:8501/psanet",
        "grpc://host:x/p",
    ],
)
def test_wrong_addresses(url):
    with pytest.raises(ValueError, match="is no address of a served model, such as grpc://"):
        Client(url)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="timeout must be positive"):
        Client("http://127.0.0.1:1/psanet", timeout=0)


def test_an_answer_that_is_cut_off_is_tried_again(server, monkeypatch, pauses):
    answers = []

    def post(session, *arguments, **options):
        answers.append(1)
        if len(answers) == 1:
            raise requests.exceptions.ChunkedEncodingError("cut off")
        return original(session, *arguments, **options)

    original = requests.Session.post
    monkeypatch.setattr(requests.Session, "post", post)
    with Client(f"http://127.0.0.1:{server.rest_port}/psanet") as client:
        assert client.metadata().crop_size == (33, 33)
    assert (len(answers), len(pauses)) == (2, 1)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (requests.ConnectionError("refused"), "UNAVAILABLE"),
        (requests.Timeout("too slow"), "DEADLINE_EXCEEDED"),
        (requests.exceptions.SSLError("not trusted"), "UNAUTHENTICATED"),
        (503, "UNAVAILABLE"),
        (200, "UNKNOWN"),
    ],
)
def test_a_failed_question_for_an_outputs_name_is_told_as_that_of_a_call(monkeypatch, failure, code):
    def answer(status, content):
        response = requests.Response()
        response.status_code, response._content = status, content
        return response

    def get(session, url, **options):
        assert 0 < options["timeout"] <= 60
        if isinstance(failure, int):
            return answer(failure, b'{"error": "no versions"}')
        raise failure

    monkeypatch.setattr(requests.Session, "post", lambda *arguments, **options: answer(200, b'{"outputs": [[1.0]]}'))
    monkeypatch.setattr(requests.Session, "get", get)
    with Client("http://127.0.0.1:1/of_others", retries=0) as client, pytest.raises(ServingError) as caught:
        client.predict("", x=np.ones((1, 1), np.float32))
    assert caught.value.code == code


def test_no_address():
    with pytest.raises(ValueError, match="no address of a served model was given"):
        Client([])


@pytest.mark.parametrize(
    ("url", "server", "model"),
    [
        ("grpc://h:8500/psanet", ("grpc", "h", 8500, ""), ("psanet", None, None)),
        ("grpcs://h/psanet/versions/3", ("grpcs", "h", 443, ""), ("psanet", 3, None)),
        ("https://h/psanet/labels/stable/", ("https", "h", 443, ""), ("psanet", None, "stable")),
        ("http://[::1]:8501/v1/models/p/versions/2", ("http", "[::1]", 8501, ""), ("p", 2, None)),
        ("https://h:8443/some/where/v1/models/p/labels/a", ("https", "h", 8443, "/some/where"), ("p", None, "a")),
    ],
)
def test_what_an_address_says(url, server, model):
    assert ModelAddress.parse(url) == ModelAddress(*server, *model)


@pytest.mark.parametrize("url", ["https://h/some/where/psanet", "grpcs://h/some/v1/models/psanet"])
def test_a_path_before_the_model_is_for_the_rest_api_alone(url):
    with pytest.raises(
        ValueError, match=r"which only the REST API's own addresses may have: https://h/some(/where)?/v1"
    ):
        Client(url)


def test_a_token_is_never_sent_for_everybody_to_read(tmp_path):
    with pytest.raises(ValueError, match=r"'grpc://h:1/p' is not encrypted: everybody on the way could read the token"):
        Client("grpc://h:1/p", token="abc")
    for host in ("127.0.0.1", "127.0.0.2", "[::1]", "localhost"):
        Client(f"http://{host}:1/p", token="abc").close()
    with pytest.raises(ValueError, match=r"\(ca\) is for grpcs:// and https://, not for 'http://h:1/p'"):
        Client("http://h:1/p", ca=tmp_path / "ca.pem")
    for scheme in ("grpcs", "https"):
        with pytest.raises(FileNotFoundError, match=r"ca\.pem"):
            Client(f"{scheme}://h/p", ca=tmp_path / "ca.pem")


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_an_encrypted_server_that_wants_a_token(secret_server, certificate, scheme):
    port = secret_server.grpc_port if scheme == "grpcs" else secret_server.rest_port
    x = np.ones((1, 2), np.float32)

    def ask(token, ca):
        with Client(f"{scheme}://localhost:{port}/toy", token=token, ca=ca, retries=0, timeout=30) as client:
            return client.predict("", x=x)

    answer = ask("s3cret", certificate[0])
    np.testing.assert_array_equal(next(iter(answer.values())), 3 * x)
    for token in (None, "other"):
        with pytest.raises(ServingError) as caught:
            ask(token, certificate[0])
        assert caught.value.code == "UNAUTHENTICATED"
    with pytest.raises(ServingError) as caught:
        ask("s3cret", None)  # a certificate that nobody has signed
    assert caught.value.code in ("UNAUTHENTICATED", "UNAVAILABLE")


@pytest.fixture(scope="module")
def secret_server(write_toy, certificate, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder, 3)
    token = folder.with_name("token")
    token.write_text("s3cret\n")
    paths = {"certificate": certificate[0], "key": certificate[1], "token_file": token}
    with Server(folder, name="toy", rest_port=0, grpc_port=0, **paths) as server:
        yield server


def test_several_servers_are_asked_in_turn(pauses):
    client = Client(["http://127.0.0.1:1/psanet", "http://127.0.0.1:2/psanet"])
    first, second = Unreliable(), Unreliable("UNAVAILABLE")
    client._turns = itertools.cycle([first, second])
    for _ in range(4):
        assert client.predict("s") == {"y": 1}
    # The second one's refusal went to the first.
    assert (first.calls, second.calls, len(pauses)) == (3, 2, 1)


def test_tensorflow_servings_own_addresses(server):
    with Client(f"http://127.0.0.1:{server.rest_port}/v1/models/psanet/versions/1") as client:
        assert client.metadata().crop_size == (33, 33)


@pytest.mark.parametrize("form", ["array", "png path", "jpeg bytes", "bmp path"])
def test_labels_of_an_image(window, address, tmp_path, form):
    image = made_image((50, 71), seed=4)
    given = image
    if form.endswith("path"):
        given = tmp_path / f"image.{form[:3]}"
        Image.fromarray(image).save(given)
    elif form == "jpeg bytes":
        given = tf.io.encode_jpeg(image, quality=100).numpy()
        (tmp_path / "p").write_bytes(given)
        image = np.asarray(Image.open(tmp_path / "p").convert("RGB"))
    with Client(address) as client:
        labels = client.labels(given)
    assert labels.dtype == np.uint8
    assert len(np.unique(labels)) > 2
    assert (labels == window.labels(image)).mean() >= 0.999


def test_what_is_no_image(address, tmp_path):
    with Client(address) as client:
        with pytest.raises(ValueError, match="the image is not a readable image: unknown format"):
            client.labels(b"hello")
        with pytest.raises(ValueError, match=r"must be uint8 \[H, W, 3\] \(RGB\), got float64 \[3, 3\]"):
            client.labels(np.zeros((3, 3)))
        with pytest.raises(FileNotFoundError):
            client.labels(tmp_path / "none.jpg")


def test_metadata_tells_the_classes(address, classes):
    with Client(address) as client:
        info = client.metadata().dataset_info()
    assert info.class_names == classes.class_names
    np.testing.assert_array_equal(info.colors, classes.colors)


class Unreliable:
    """Stands in for a transport: fails with each code in turn, then answers."""

    def __init__(self, *codes):
        self.codes = list(codes)
        self.calls = 0

    def predict(self, signature, inputs, timeout):
        self.calls += 1
        if self.codes:
            raise ServingError(self.codes.pop(0), "no")
        return {"y": 1}


@pytest.fixture
def pauses(monkeypatch):
    pauses = []
    monkeypatch.setattr("psanet_tf.serving.client.client.time.sleep", pauses.append)
    return pauses


def client_with(transport, **options):
    client = Client("http://127.0.0.1:1/psanet", **options)
    client._turns = itertools.repeat(transport)
    return client


def test_unavailable_is_tried_again_with_growing_pauses(pauses):
    transport = Unreliable("UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE")
    assert client_with(transport).predict("s") == {"y": 1}
    assert transport.calls == 4
    assert len(pauses) == 3
    for pause, longest in zip(pauses, (0.1, 0.2, 0.4), strict=True):
        assert longest / 2 <= pause <= longest


@pytest.mark.parametrize(
    "code", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"]
)
def test_other_errors_are_not_tried_again(pauses, code):
    transport = Unreliable(code)
    with pytest.raises(ServingError) as caught:
        client_with(transport).predict("s")
    assert (caught.value.code, transport.calls, pauses) == (code, 1, [])


def test_trying_again_ends(pauses):
    transport = Unreliable(*["UNAVAILABLE"] * 10)
    with pytest.raises(ServingError):
        client_with(transport, retries=2).predict("s")
    assert transport.calls == 3
    transport = Unreliable(*["UNAVAILABLE"] * 10)
    with pytest.raises(ServingError):
        client_with(transport, retries=9, timeout=0.05).predict("s")
    assert transport.calls == 1  # the first pause would pass the time limit


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_listens(scheme):
    # Port 9 of this machine: the discard service, which nothing runs.
    with (
        Client(f"{scheme}://127.0.0.1:9/psanet", retries=0, timeout=5) as client,
        pytest.raises(ServingError) as caught,
    ):
        client.metadata()
    assert caught.value.code == "UNAVAILABLE"


@pytest.mark.parametrize("size", [(50, 40), (64, 64), (65, 100), (200, 131)])
def test_tiles_cover_an_image(size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    seen = []

    def label(tile):
        assert max(tile.shape[:2]) <= 64
        seen.append(tile.shape)
        return tile[..., 0]

    result = label_by_tiles(image, label, tile_size=64, overlap=16)
    np.testing.assert_array_equal(result, image[..., 0])
    assert (len(seen) == 1) == (max(size) <= 64)


def test_neighbouring_tiles_share_the_overlap_evenly():
    # Each tile answers with the distance of a pixel to the tile's nearest side.
    def depth(tile):
        rows, columns = (np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in tile.shape[:2])
        return np.minimum(rows[:, None], columns[None]).astype(np.uint8)

    result = label_by_tiles(np.zeros((64, 300, 3), np.uint8), depth, tile_size=64, overlap=16)
    # Away from the image's own border every pixel lies at least about half the overlap deep in its tile.
    assert result[30, 8:-8].min() >= 7


@pytest.mark.parametrize("limit", ["none", "bytes", "pixels"])
def test_images_too_large_for_a_request_go_by_tiles(server, monkeypatch, limit):
    # Stands in for the server: a pixel's label is its red.
    def label(self, data):
        tile = np.asarray(Image.open(io.BytesIO(data)))
        sizes.append(tile.shape[:2])
        return tile[..., 0]

    def encode(pixels, images):
        encoded.append(pixels.shape[:2])
        return encoded_plainly(pixels, images)

    sizes, encoded = [], []
    monkeypatch.setattr(Client, "_label_bytes", label)
    monkeypatch.setattr("psanet_tf.serving.client.client.encoded_plainly", encode)
    monkeypatch.setattr("psanet_tf.serving.client.client.TILE_SIZE", 48)
    monkeypatch.setattr("psanet_tf.serving.client.client.label_by_tiles", functools.partial(label_by_tiles, overlap=16))
    image = np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    with Client(f"grpc://127.0.0.1:{server.grpc_port}/psanet") as client:
        if limit == "bytes":
            monkeypatch.setattr("psanet_tf.serving.client.client._MAX_UPLOAD_BYTES", 10_000)
        if limit == "pixels":
            client._metadata = dataclasses.replace(client.metadata(), max_pixels=90 * 70 - 1)
        np.testing.assert_array_equal(client.labels(image), image[..., 0])
    # 90 rows take three tiles of 48 that overlap by 16, 70 columns two.
    assert sizes == ([(90, 70)] if limit == "none" else [(48, 48)] * 6)
    # Of too many pixels the image is never encoded as a whole.
    assert encoded == ([(90, 70)] if limit == "bytes" else []) + sizes
