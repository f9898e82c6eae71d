"""Files of weights as files: whether one is whole, and what tells its weights from others, without building a model."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

from PIL import Image

from psanet_tf.files import hash_file
from psanet_tf.weights.pytorch_files import LEGACY_START

CONFIG_MEMBER = "config.json"
"""Of a `.keras` file: the network, and what it says of itself."""

# Of the members of a `.keras` file; metadata.json holds the time of writing.
_IDENTIFYING = (CONFIG_MEMBER, "model.weights.h5")
_CHUNK = 1 << 20


def weights_identity(path: str | os.PathLike) -> str:
    """What tells the weights in a file from all others, wherever the file lies and whenever it was written.

    A calibration that a `.keras` file carries leaves its weights what they are. Reads the whole file, about a second
    per GB.

    Args:
        path: a file of weights: `.keras`, ``.pth``, ``.xml`` with its ``.bin``, or another; or the folder of a
            SavedModel.

    Returns:
        64 hexadecimal digits: SHA-256 of network and weights in a `.keras` file, of the bytes of any other, and of
        names and bytes of all files of a folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a `.keras` file that is damaged.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if path.suffix == ".keras":
        config = b""
        for name, chunk in _members(path):
            if name == CONFIG_MEMBER:
                config += chunk
            elif name in _IDENTIFYING:
                if config:
                    digest.update(_without_calibration(config))
                    config = b""
                digest.update(chunk)
        return digest.hexdigest()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    if path.suffix == ".xml":
        files.append(path.with_suffix(".bin"))  # OpenVINO's, with the numbers
    for file_path in files:
        if file_path.is_file():
            if path.is_dir():
                digest.update(f"{file_path.relative_to(path)}\0".encode())
            hash_file(file_path, digest)
    return digest.hexdigest()


def check_keras_file(path: str | os.PathLike) -> None:
    """Reads a `.keras` file to its end and compares its checksums.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut short, damaged, or no `.keras` file.
    """
    for _ in _members(Path(path)):
        pass


def kind_of_weights(path: str | os.PathLike) -> str:
    """ "HDF5", "PyTorch", "safetensors", or in words what a file without weights is; by its content, not its name."""
    with open(path, "rb") as file:
        start = file.read(4096)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "HDF5"
    # The length of a JSON header, eight bytes, and the header.
    if start[8:10] == b'{"' and int.from_bytes(start[:8], "little") < os.path.getsize(path):
        return "safetensors"
    # An archive with a pickle inside, or, before PyTorch 1.6, pickles one after the other.
    if start.startswith(LEGACY_START):
        return "PyTorch"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/data.pkl") for name in names):
            return "PyTorch"
        return f"a zip archive of {names[0]} and others" if names else "an empty zip archive"
    if start.startswith(b"PK"):
        return "a zip archive that is cut short"
    if not start:
        return "nothing: it is empty"
    try:
        with Image.open(path) as image:
            return f"an image ({image.format})"
    except (OSError, ValueError, SyntaxError):
        pass
    text = start.decode("utf-8", "ignore")
    return "text" if all(character.isprintable() or character.isspace() for character in text) else "other data"


def _without_calibration(config):
    """Bytes of config.json as they were before `store_calibration` put something in."""
    if b'"calibration"' not in config:
        return config
    model = json.loads(config)
    description = model.get("config", {}).get("description")
    if not isinstance(description, dict) or description.pop("calibration", None) is None:
        return config
    return json.dumps(model).encode()


def _members(path):
    """(name of the member, bytes) of a `.keras` file, chunk by chunk."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a .keras file, or is cut short")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            missing = [name for name in _IDENTIFYING if name not in names]
            if missing:
                raise ValueError(f"{path} is not a .keras file: it holds no {missing[0]}")
            for name in sorted(names):
                with archive.open(name) as member:
                    # zipfile compares the checksum when the last chunk has been read.
                    while chunk := member.read(_CHUNK):
                        yield name, chunk
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
