"""Errors of the serving parts: gRPC's status codes, and the HTTP status that TensorFlow Serving maps each to."""

import re

HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}

_LONGEST_MESSAGE = 2000
# Lines with which TensorFlow surrounds the text of an operation's error.
_ABOUT_NODES = ("Graph execution error", "Detected at node", "<stack traces unavailable>")


class ServingError(Exception):
    """A request that was not answered.

    Attributes:
        code: name of a gRPC status code, e.g. ``"INVALID_ARGUMENT"``.
        message: what was wrong, for the person who sent the request. It may quote the request: longer than 2000
            characters, it is cut, and what is no Unicode in it is replaced.
    """

    def __init__(self, code: str, message: str) -> None:
        message = message[:_LONGEST_MESSAGE].encode(errors="replace").decode()
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        return HTTP_STATUS[self.code]


def invalid_argument(message: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", message)


def from_tensorflow(error: Exception) -> ServingError:
    """The `ServingError` for a `tf.errors.OpError`: its code, and its message without the list of graph nodes."""
    code = type(error).__name__.removesuffix("Error")
    name = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in code).lstrip("_")
    name = {"CANCELLED": "CANCELLED", "OP": "UNKNOWN"}.get(name, name)
    # "[[{{node network/Conv2D}}]]" and "[[StatefulPartitionedCall]]" say where in the graph it was.
    lines = [line for line in error.message.splitlines() if line.strip() and not line.lstrip().startswith("[[")]
    message = "\n".join(line for line in lines if not line.startswith(_ABOUT_NODES))
    # Where functions were not put into the graph that calls them, each of them stands before the text.
    message = re.sub(r"\{\{function_node [^{}]*\}\} *", "", message)
    # "assertion failed: [some text]" is how an assertion inside the graph says its text.
    assertion = re.fullmatch(r"assertion failed: \[(.*)\]\s*", message, re.DOTALL)
    message = assertion.group(1) if assertion else message
    return ServingError(name if name in HTTP_STATUS else "UNKNOWN", message or str(error))
