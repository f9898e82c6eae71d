"""JSON of TensorFlow Serving's REST API to arrays and back (row format "instances", column format "inputs")."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import invalid_argument
from psanet_tf.runtimes.saved_model import Signature

with needs_extra("serving", "the model server"):
    import orjson

ROW, COLUMN = "instances", "inputs"
_LONGEST_VALUE = 80


def parse_json(body: bytes) -> dict[str, Any]:
    """The object in a request's body.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        # Slower, but takes NaN and Infinity as TensorFlow Serving does, and says where the error is.
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise invalid_argument(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {_show(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {_show(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def read_inputs(document: Mapping[str, Any], signature: Signature) -> tuple[dict[str, np.ndarray], str]:
    """Arrays for a signature's inputs.

    Args:
        document: the request's object.
        signature: `Signature`.

    Returns:
        (inputs, format): input name -> array; ROW or COLUMN, which the answer must have too.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    if ROW in document and COLUMN in document:
        raise invalid_argument("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if ROW in document:
        return _read_rows(document[ROW], signature), ROW
    if COLUMN in document:
        return _read_columns(document[COLUMN], signature), COLUMN
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def write_outputs(outputs: Mapping[str, np.ndarray], request_format: str) -> bytes:
    """The answer's body for output name -> array; one output stands without its name.

    Raises:
        ServingError: INVALID_ARGUMENT, outputs of different lengths in row format.
    """
    columns = {name: _to_json(name, array) for name, array in sorted(outputs.items())}
    if request_format == COLUMN:
        value = columns if len(columns) > 1 else next(iter(columns.values()))
        return _dump({"outputs": value})
    lengths = {name: array.shape[0] if array.ndim else None for name, array in outputs.items()}
    if len(set(lengths.values())) > 1 or None in lengths.values():
        raise invalid_argument(f"outputs have inconsistent batch sizes {lengths}; use the column format ('inputs')")
    if len(columns) == 1:
        return _dump({"predictions": next(iter(columns.values()))})
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return _dump({"predictions": rows})


def _read_rows(instances, signature):
    if not isinstance(instances, list):
        raise invalid_argument(f"JSON Value: {_show(instances)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid_argument("JSON Value: [] No values in 'instances' array")
    names = sorted(signature.inputs)
    if not _is_named(instances[0]):
        if len(names) > 1:
            raise invalid_argument(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                f"tensorinfo_map: {','.join(names)}"
            )
        for index, item in enumerate(instances):
            if _is_named(item):
                raise invalid_argument(f"Expecting value/list but got object at item {index} of input list")
        return {names[0]: _to_array(instances, names[0], signature.inputs[names[0]].dtype)}
    for index, item in enumerate(instances):
        if not _is_named(item):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        if sorted(item) != names:
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {_show(item)} "
                f"keys must be equal to: {','.join(names)}"
            )
    return {name: _to_array([item[name] for item in instances], name, signature.inputs[name].dtype) for name in names}


def _read_columns(inputs, signature):
    names = sorted(signature.inputs)
    if not _is_named(inputs):
        if len(names) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                f"tensorinfo_map: {','.join(names)}"
            )
        return {names[0]: _to_array(inputs, names[0], signature.inputs[names[0]].dtype)}
    for name in names:
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    for name in inputs:
        if name not in signature.inputs:
            raise invalid_argument(f"JSON object: does not have named input: {name}; the inputs are {','.join(names)}")
    return {name: _to_array(inputs[name], name, signature.inputs[name].dtype) for name in names}


def _to_array(value, name, dtype):
    if dtype == tf.string:
        return _string_array(value, name)
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        raise invalid_argument(
            f"input {name}: lists of different lengths at one level, or numbers beyond 64 bits"
        ) from None
    kinds = "b" if dtype.is_bool else "iu" if dtype.is_integer else "iuf"
    if array.dtype.kind not in kinds and array.size:
        culprit = _first_other(value, kinds)
        raise invalid_argument(
            f"input {name}: JSON Value: {_show(culprit)} Type: {_json_type(culprit)} "
            f"is not of expected type: {dtype.name}"
        )
    if dtype.is_integer and array.size:
        low, high = int(array.min()), int(array.max())
        if low < dtype.min or high > dtype.max:
            raise invalid_argument(
                f"input {name}: {low if low < dtype.min else high} is outside the values of {dtype.name}, "
                f"{dtype.min} to {dtype.max}"
            )
    return array.astype(dtype.as_numpy_dtype)


def _string_array(value, name):
    shape = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        if not level:
            break
        level = level[0]
    flat = []
    _flatten_strings(value, shape, name, flat)
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape(shape)


def _flatten_strings(value, shape, name, flat):
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            raise invalid_argument(f"input {name}: Encountered list at unexpected size, expected size: {shape[0]}")
        for item in value:
            _flatten_strings(item, shape[1:], name, flat)
    elif isinstance(value, str):
        flat.append(value.encode())
    elif isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            text = value["b64"].encode("ascii")
            flat.append(base64.b64decode(text + b"=" * (-len(text) % 4), validate=True))
        except (binascii.Error, ValueError):
            raise invalid_argument(f"input {name}: Unable to base64 decode") from None
    elif isinstance(value, dict):
        raise invalid_argument(f"input {name}: JSON Value: {_show(value)} not formatted correctly for base64 data")
    else:
        raise invalid_argument(
            f"input {name}: JSON Value: {_show(value)} Type: {_json_type(value)} is not of expected type: string"
        )


def _to_json(name, array):
    if array.dtype.kind not in "OSU":
        return array
    if name.endswith("_bytes"):
        encode = lambda item: {"b64": base64.b64encode(item).decode("ascii")}  # noqa: E731
    else:
        encode = lambda item: item.decode("utf-8", errors="replace") if isinstance(item, bytes) else item  # noqa: E731
    return _map_nested(array, encode)


def _map_nested(array, function):
    if array.ndim == 0:
        return function(array.item())
    return [_map_nested(item, function) if isinstance(item, np.ndarray) else function(item) for item in array]


def _dump(document):
    if _all_finite(document):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY, default=_listed)
    return json.dumps(document, default=lambda array: array.tolist()).encode()


def _all_finite(value):
    if isinstance(value, dict):
        return all(_all_finite(item) for item in value.values())
    if isinstance(value, list):
        return all(_all_finite(item) for item in value)
    return not isinstance(value, np.ndarray) or value.dtype.kind != "f" or bool(np.isfinite(value).all())


def _listed(value):
    """For arrays that orjson does not take itself: those not in C order."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)


def _is_named(value):
    return isinstance(value, dict) and not (set(value) == {"b64"} and isinstance(value["b64"], str))


def _first_other(value, kinds):
    """The first leaf of nested lists that is none of the NumPy kinds."""
    if isinstance(value, list):
        for item in value:
            found = _first_other(item, kinds)
            if found is not None:
                return found
        return None
    return value if np.array(value).dtype.kind not in kinds else None


def _json_type(value):
    names = {bool: str(value), int: "Number", float: "Number", str: "String", list: "Array", dict: "Object"}
    return names.get(type(value), "Null")


def _show(value):
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
