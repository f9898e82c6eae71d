"""Who may ask: bearer tokens, certificates, and which pages a browser may show this server's answers to."""

import hmac
import os
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.serving.addresses import is_loopback


class BearerToken:
    """What a request has to say in ``authorization: Bearer TOKEN``.

    Args:
        path: file with the token, one line of ASCII without spaces.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        try:
            self._token = Path(path).read_text(encoding="ascii").strip().encode()
        except UnicodeDecodeError:
            self._token = b""
        if not self._token or len(self._token.split()) != 1:
            raise ValueError(f"{path} must hold a token: one line of ASCII characters without spaces")

    def check(self, authorization: str | None) -> None:
        """Compares a header's value in a time that tells nothing.

        Raises:
            ServingError: UNAUTHENTICATED.
        """
        scheme, _, token = (authorization or "").strip().partition(" ")
        given = token.strip().encode(errors="replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._token):
            raise ServingError("UNAUTHENTICATED", "this server wants its token: authorization: Bearer TOKEN")


class BrowserCheck:
    """Keeps pages of other sites from asking through a visitor's browser, which reaches what they do not.

    A page may ask the server that it came from; its browser says so in the header Origin. A name of another site that
    was made to point here (DNS rebinding) is in the header Host.

    Args:
        host: that the server listens on; names are checked for a loopback address.
        allowed_hosts: further names, those of a proxy in front; given, they are checked whatever `host` is.
        cors: pages of all sites may ask.
    """

    def __init__(self, host: str, allowed_hosts: Iterable[str] = (), cors: bool = False) -> None:
        self._further = {name.lower() for name in allowed_hosts}
        self._hosts = {"localhost", "127.0.0.1", "::1", host.lower()} | self._further
        self._checks = not cors and (is_loopback(host) or bool(self._further))

    def check(self, headers: Mapping[str, str]) -> None:
        """Looks at a request's headers.

        Raises:
            ServingError: PERMISSION_DENIED.
        """
        if not self._checks:
            return
        host, origin = headers.get("Host"), headers.get("Origin")
        if host is not None and _name(f"//{host}") not in self._hosts:
            raise ServingError(
                "PERMISSION_DENIED", f"this server is not called {host}; psanet serve --allowed-host NAME allows it"
            )
        if origin is not None and not self._is_own(origin, host):
            raise ServingError(
                "PERMISSION_DENIED",
                f"pages of {origin} may not ask this server; psanet serve --allowed-host NAME or --cors allows it",
            )

    def _is_own(self, origin, host):
        try:
            place = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return bool(place) and (place == (host or "").lower() or _name(origin) in self._further)


def tls_context(certificate: str | os.PathLike, key: str | os.PathLike) -> ssl.SSLContext:
    """For a server with this certificate (PEM, with the chain) and its private key (PEM).

    Raises:
        OSError: a file cannot be read.
        ValueError: they are no certificate and its key.
    """
    for path in (certificate, key):
        with open(path, "rb"):  # whose error names the file
            pass
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        raise ValueError(f"{certificate} and {key} are no certificate and its key, in PEM: {error.reason}") from None
    return context


def _name(url):
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
