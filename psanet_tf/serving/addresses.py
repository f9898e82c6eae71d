"""Addresses of servers: how URLs have them, whether they are this machine's, whether one can listen there."""

import errno
import ipaddress
import os
import socket


def check_address(host: str, port: int) -> None:
    """Tries whether a server could listen, without listening.

    Raises:
        OSError: the port is taken or not allowed, or the host is no address of this machine.
    """
    address = host_and_port(host, port)
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError) as error:
        raise OSError(f"cannot listen on {address}: {error}") from None
    failure, bound = None, False
    for family, kind, protocol, _, place in places:
        try:
            with socket.socket(family, kind, protocol) as probe:
                if os.name == "posix":  # as asyncio does: the rests of a former server's connections do not count
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(place)
                bound = True
        except OSError as error:
            failure = error
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                break
    if failure is not None and (not bound or failure.errno in (errno.EADDRINUSE, errno.EACCES)):
        raise OSError(failure.errno, f"cannot listen on {address}: {failure.strerror}; choose another port or host")


def host_and_port(host: str, port: int) -> str:
    """As URLs have it: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
