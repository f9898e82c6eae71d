"""The JSON document in a request's body, read as TensorFlow Serving's RapidJSON reads it."""

import json
import math
from typing import Any

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import invalid_argument

with needs_extra("serving", "the model server"):
    import orjson

_LONGEST_VALUE = 80
_LONGEST_INTEGER = 20  # digits and sign of the largest number of 64 bits


class RepeatedKeys(dict):
    """An object in which a key occurs more than once. It has the first value of each."""


def parse_json(body: bytes) -> dict[str, Any]:
    """The object in a request's body.

    NaN, Infinity and a byte order mark are taken. Of a key that is repeated the first value counts, and the object is
    a `RepeatedKeys`. Integers beyond 64 bits are floating-point numbers.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _parse_slowly(body)
    else:
        if b"\\" in body or _lacks_strings(document, body.count(b'"') // 2):
            document = _parse_slowly(body)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {show(document)} Is not object")
    return document


def show(value: Any) -> str:
    """The beginning of a value as JSON, for error messages."""
    try:
        text = json.dumps(value, default=str)
    except (RecursionError, ValueError):
        text = "(nested too deeply)"
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."


def type_name(value: Any) -> str:
    """What RapidJSON calls the type of a value."""
    if isinstance(value, bool):
        return str(value)
    names = {int: "Number", float: "Number", str: "String", list: "Array", type(None): "Null"}
    return names.get(type(value), "Object")


def _lacks_strings(document, count):
    """Whether a document has fewer keys and strings than `count`: then one of equal keys is missing."""
    pending = [document]
    while pending and count > 0:
        value = pending.pop()
        if isinstance(value, dict):
            count -= len(value)
            value = list(value.values())
        elif isinstance(value, str):
            value = [value]
        elif not isinstance(value, list) or (value and isinstance(value[0], int | float)):
            continue  # a string among numbers is missed, which costs time only
        count -= sum(isinstance(item, str) for item in value)
        pending += [item for item in value if isinstance(item, dict | list)]
    return count > 0


def _parse_slowly(body):
    """With the standard library, which takes what orjson does not and says where an error is."""
    try:
        text = body.decode("utf-8-sig")
        document = json.loads(text, object_pairs_hook=_first_values, parse_int=_integer, parse_float=_decimal)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()  # half of a surrogate pair cannot be encoded
    except UnicodeEncodeError:
        raise invalid_argument("JSON Parse error: The surrogate pair in string is invalid.") from None
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: Invalid value. {error}") from None
    return document


def _first_values(pairs):
    values = {}
    for key, value in pairs:
        values.setdefault(key, value)
    return values if len(values) == len(pairs) else RepeatedKeys(values)


def _integer(text):
    if len(text) <= _LONGEST_INTEGER and -(2**63) <= (value := int(text)) < 2**64:
        return value
    return _decimal(text)


def _decimal(text):
    value = float(text)
    if math.isinf(value):
        raise ValueError("Number too big to be stored in double.")
    return value
