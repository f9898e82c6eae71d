"""Files from the network: resumed where they were cut off, checked before anything reads them."""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from psanet_tf.cache import cache_folder
from psanet_tf.files import hash_file
from psanet_tf.progress import track_bytes

_BLOCK = 1 << 16  # of a connection that breaks, the last block is lost
_SECONDS_TO_CONNECT, _SECONDS_TO_WAIT = 20, 60
_PAUSES = (1.0, 4.0, 10.0)  # seconds before each further try


def weights_folder() -> Path:
    """Where downloaded weights are kept; see `psanet_tf.cache.cache_folder`."""
    return cache_folder() / "weights"


def download(url: str, target: str | Path, checksum: str | None = None, pauses: tuple[float, ...] = _PAUSES) -> Path:
    """Fetches a file, unless it is there already.

    What has come of a file that was cut off is kept beside it, as ``TARGET.part``, and only the rest is asked for the
    next time, in this call or in a later one, if the server says that the file is still the same.

    Args:
        url: ``http://`` or ``https://``.
        target: where the file shall be; its folder is made.
        checksum: ``"sha256:"`` or ``"md5:"`` and the first hex digits of the file's, or all of them. A file that is
            there already is taken without being checked again: it was when it came.
        pauses: seconds to wait before each further try after the connection broke.

    Returns:
        `target`.

    Raises:
        OSError: the file cannot be had; the message says where to get it otherwise, and where to put it. Or there is
            no room for it.
        ValueError: the file that came is not the one that the checksum is of. It has been removed.
    """
    target = Path(target)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    with _alone(target.with_name(target.name + ".lock")):
        if target.is_file():  # another process has fetched it meanwhile
            return target
        for pause in (*pauses, None):
            try:
                _fetch(url, partial)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                if pause is None:
                    raise OSError(_unreachable(url, target, partial, _reason(error))) from None
                time.sleep(pause)
            except requests.RequestException as error:
                raise OSError(_unreachable(url, target, partial, _reason(error))) from None
        if checksum is not None:
            try:
                check_file(partial, checksum)
            except ValueError as error:
                _discard(partial)
                raise ValueError(f"{url} is not the file that it should be and was removed: {error}") from None
        os.replace(partial, target)
        _discard(partial)
    return target


def check_file(path: str | Path, checksum: str) -> str:
    """Compares a file with a checksum.

    Args:
        path: of the file.
        checksum: ``"sha256:"`` or ``"md5:"`` and the first hex digits, at least 8.

    Returns:
        All hex digits.

    Raises:
        ValueError: they differ, or `checksum` is not of that form.
    """
    algorithm, _, digits = checksum.partition(":")
    if algorithm not in ("sha256", "md5") or len(digits) < 8:
        raise ValueError(f"a checksum must look like sha256:99fac37c, got {checksum!r}")
    digest = hash_file(path, hashlib.new(algorithm)).hexdigest()
    if not digest.startswith(digits.lower()):
        raise ValueError(f"its {algorithm} begins with {digest[: len(digits)]}, it should with {digits}")
    return digest


def _fetch(url, partial):
    """Appends to `partial` what is missing of it."""
    tag_file = partial.with_name(partial.name + ".tag")
    start, headers = 0, {"Accept-Encoding": "identity"}
    if partial.is_file() and tag_file.is_file():
        start = partial.stat().st_size
        # The server sends the whole file again if it is no longer the one that the tag is of.
        headers |= {"Range": f"bytes={start}-", "If-Range": tag_file.read_text(encoding="utf-8")}
    timeout = (_SECONDS_TO_CONNECT, _SECONDS_TO_WAIT)
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            _discard(partial)
            raise requests.ConnectionError("the server has less of the file than has come already")
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            start = 0
        tag = response.headers.get("ETag", "")
        tag = response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
        if tag:
            tag_file.write_text(tag, encoding="utf-8")
        else:
            tag_file.unlink(missing_ok=True)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _check_room(partial, total, start)
        with partial.open("ab" if start else "wb") as file, track_bytes(url, total, start) as advance:
            for block in response.iter_content(_BLOCK):
                file.write(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())


def _check_room(partial, total, start):
    free = shutil.disk_usage(partial.parent).free
    if total is not None and total - start > free:
        raise OSError(
            f"{partial.parent} has {free / 1e6:.0f} MB left, {(total - start) / 1e6:.0f} MB are needed: make room, or "
            "set PSANET_CACHE_DIR to a folder elsewhere"
        )


def _unreachable(url, target, partial, reason):
    kept = f" ({partial.stat().st_size / 1e6:.1f} MB have come and are kept)" if partial.is_file() else ""
    return (
        f"{url} cannot be fetched{kept}: {reason}. Try again, or fetch it on a machine that reaches it and put it "
        f"there: {target}"
    )


def _reason(error):
    response = error.response
    if response is not None:
        return f"the server answers {response.status_code} {response.reason}"
    text = str(error)
    return "there is no connection to the server" if "Max retries exceeded" in text else text


def _discard(partial):
    for path in (partial, partial.with_name(partial.name + ".tag")):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lets one process at a time fetch a file, where the system has file locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
