"""Values of TensorFlow Serving's REST API as arrays (row format "instances", column format "inputs")."""

import base64
import binascii
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from psanet_tf.runtimes.errors import ServingError, invalid_argument
from psanet_tf.runtimes.saved_model import Signature, lengths
from psanet_tf.serving.server.json_documents import RepeatedKeys, show, type_name

ROW, COLUMN = "instances", "inputs"
# NumPy's arrays have up to 32 dimensions, or 64 in newer ones.
_MOST_DIMENSIONS = 32
# The largest integers up to which a float type holds all; TensorFlow Serving refuses larger ones.
_EXACT_INTEGERS = {tf.float32: 2**24 - 1, tf.float64: 2**53 - 1}


def signature_name(document: Mapping[str, Any]) -> str:
    """The signature that a request names, "" for the default one.

    Raises:
        ServingError: INVALID_ARGUMENT, not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {show(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def read_inputs(document: Mapping[str, Any], signature: Signature) -> tuple[dict[str, np.ndarray], str]:
    """Arrays for a signature's inputs.

    Args:
        document: the request's object, from `parse_json`.
        signature: `Signature`.

    Returns:
        (inputs, format): input name -> array; ROW or COLUMN, which the answer must have too.

    Raises:
        ServingError: INVALID_ARGUMENT, or UNIMPLEMENTED for a dtype that JSON has no values for.
    """
    if not signature.inputs:
        raise invalid_argument(f"Failed to get input map for signature: {signature.name}")
    if ROW in document and COLUMN in document:
        raise invalid_argument(
            f"JSON Value: {show(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
            "to exist"
        )
    if ROW in document:
        return _read_rows(document[ROW], signature), ROW
    if COLUMN in document:
        return _read_columns(document[COLUMN], signature), COLUMN
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _read_rows(instances, signature):
    if not isinstance(instances, list):
        raise invalid_argument(f"JSON Value: {show(instances)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid_argument("JSON Value: [] No values in 'instances' array")
    specs, names = signature.inputs, sorted(signature.inputs)
    if not _is_named(instances[0]):
        if len(names) > 1:
            raise invalid_argument(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                f"tensorinfo_map: {','.join(names)}"
            )
        for index, item in enumerate(instances):
            if _is_named(item):
                raise invalid_argument(f"Expecting value/list but got object at item {index} of input list")
        return {names[0]: _stack(instances, names[0], specs[names[0]].dtype, "")}
    for index, item in enumerate(instances):
        if not _is_named(item):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        for name in item:
            if name not in specs:
                raise _in_element(index, f" key: {name}", f"JSON object: does not have named input: {name}")
        if set(item) != set(names) or isinstance(item, RepeatedKeys):
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {show(item)} "
                f"keys must be equal to: {','.join(names)}"
            )
    return {
        name: _stack([item[name] for item in instances], name, specs[name].dtype, f" key: {name}") for name in names
    }


def _read_columns(inputs, signature):
    specs, names = signature.inputs, sorted(signature.inputs)
    if not _is_named(inputs):
        if len(names) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                f"tensorinfo_map: {','.join(names)}"
            )
        return {names[0]: _to_array(inputs, names[0], specs[names[0]].dtype)}
    for name in names:
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: _to_array(inputs[name], name, specs[name].dtype) for name in names}


def _stack(items, name, dtype, key):
    """The array of a row's elements, of which each must be an array of the first one's shape."""
    try:
        return _to_array(items, name, dtype)
    except ServingError:
        # Which element it is, and what is wrong with it by itself, is looked for only now.
        index = _first_unlike(items, name, dtype)
        try:
            array, first = (_to_array(item, name, dtype) for item in (items[index], items[0]))
        except ServingError as error:
            raise _in_element(index, key, error.message, error.code) from None
        if array.size != first.size:
            raise _in_element(index, key, f"Expecting tensor size: {first.size} but got: {array.size}") from None
        if array.shape != first.shape:
            raise _in_element(
                index, key, f"Expecting shape {lengths(first.shape)} but got: {lengths(array.shape)}"
            ) from None
        raise


def _first_unlike(items, name, dtype):
    """Index of the first element that makes no array together with those before it.

    By halves: to look at millions of elements one by one would take minutes.
    """
    good, bad = 0, len(items)  # so many first elements do, or do not
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            _to_array(items[:middle], name, dtype)
            good = middle
        except ServingError:
            bad = middle
    return good


def _in_element(index, key, message, code="INVALID_ARGUMENT"):
    return ServingError(code, f"Failed to process element: {index}{key} of 'instances' list. Error: {message}")


def _to_array(value, name, dtype):
    leaves, shape = _flatten(value, name)
    if dtype == tf.string:
        array = np.empty(len(leaves), object)
        array[:] = [_bytes(leaf, name) for leaf in leaves]
    elif dtype.is_bool or dtype.is_integer or dtype.is_floating:
        array = _numbers(leaves, name, dtype)
    else:
        raise ServingError("UNIMPLEMENTED", f"Conversion of JSON Value: {show(value)} to type: {dtype.name}")
    return array.reshape(shape)


def _flatten(value, name):
    """(list of all values that are no lists, shape), level by level: nothing here recurs as deep as lists may nest."""
    level, shape = [value], []
    while level and isinstance(level[0], list):
        if len(shape) == _MOST_DIMENSIONS:
            raise invalid_argument(f"input {name}: more than {_MOST_DIMENSIONS} lists in one another")
        size = len(level[0])
        if set(map(type, level)) != {list}:
            item = next(item for item in level if not isinstance(item, list))
            raise invalid_argument(
                f"input {name}: JSON Value: {show(item)} found at incorrect level: {len(shape) + 1} in the JSON DOM"
            )
        if set(map(len, level)) != {size}:
            other = next(len(item) for item in level if len(item) != size)
            raise invalid_argument(
                f"input {name}: Encountered list at unexpected size: {other} at level: {len(shape)} "
                f"expected size: {size}"
            )
        shape.append(size)
        level = list(itertools.chain.from_iterable(level))
    if list in set(map(type, level)):
        raise invalid_argument(
            f"input {name}: Encountered list at unexpected level: {len(shape)} expected < {len(shape)}"
        )
    return level, shape


def _numbers(leaves, name, dtype):
    types = {bool} if dtype.is_bool else {int} if dtype.is_integer else {int, float}
    if not set(map(type, leaves)) <= types:
        culprit = next(leaf for leaf in leaves if type(leaf) not in types)
        raise invalid_argument(
            f"input {name}: JSON Value: {show(culprit)} Type: {type_name(culprit)} "
            f"is not of expected type: {_tensorflow_name(dtype)}"
        )
    if dtype.is_integer and leaves:
        for extreme in (min(leaves), max(leaves)):
            if not dtype.min <= extreme <= dtype.max:
                raise invalid_argument(
                    f"input {name}: {extreme} is outside the values of {dtype.name}, {dtype.min} to {dtype.max}; "
                    f"JSON Value: {extreme} Type: Number is not of expected type: {_tensorflow_name(dtype)}"
                )
    if dtype.is_floating:
        return _decimals(leaves, name, dtype)
    return np.array(leaves, dtype.as_numpy_dtype)


def _decimals(leaves, name, dtype):
    array = np.array(leaves, np.float64)
    largest = np.max(np.abs(array), initial=0.0, where=np.isfinite(array))
    exact, highest = _EXACT_INTEGERS.get(dtype, np.inf), float(dtype.max)
    if largest > min(exact, highest):
        for leaf in leaves:
            limit = exact if isinstance(leaf, int) else highest
            if np.isfinite(leaf) and abs(leaf) > limit:
                raise invalid_argument(
                    f"input {name}: Cannot convert JSON value: {show(leaf)} to {_tensorflow_name(dtype)} "
                    "without loss of precision."
                )
    return array.astype(dtype.as_numpy_dtype)


def _bytes(leaf, name):
    if isinstance(leaf, str):
        return leaf.encode()
    if not isinstance(leaf, dict):
        raise invalid_argument(
            f"input {name}: JSON Value: {show(leaf)} Type: {type_name(leaf)} is not of expected type: string"
        )
    if _is_named(leaf):
        raise invalid_argument(f"input {name}: JSON Value: {show(leaf)} not formatted correctly for base64 data")
    try:
        text = b"".join(leaf["b64"].encode("ascii").split())
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument(f"input {name}: Unable to base64 decode") from None


def _is_named(value):
    """Whether a value is an object with inputs' names, not one that holds encoded bytes."""
    if not isinstance(value, dict):
        return False
    return isinstance(value, RepeatedKeys) or set(value) != {"b64"} or not isinstance(value["b64"], str)


def _tensorflow_name(dtype):
    """As C++ prints it."""
    return {tf.float32: "float", tf.float64: "double"}.get(dtype, dtype.name)
