"""Arrays as TensorFlow Serving's REST API writes them."""

import base64
import json
from collections.abc import Mapping

import numpy as np

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.errors import invalid_argument
from psanet_tf.serving.server.rest_tensors import COLUMN

with needs_extra("serving", "the model server"):
    import orjson


def write_outputs(outputs: Mapping[str, np.ndarray], request_format: str) -> bytes:
    """The answer's body for output name -> array; one output stands without its name.

    Args:
        outputs: of the signature.
        request_format: ROW or COLUMN, the request's.

    Raises:
        ServingError: INVALID_ARGUMENT: no outputs, a dtype that JSON has no values for, or, in row format, outputs of
            different lengths or without any.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    names = sorted(outputs)
    columns = {name: _values(name, outputs[name]) for name in names}
    if request_format == COLUMN:
        return _dump({"outputs": columns if len(columns) > 1 else columns[names[0]]})
    length = None
    for name in names:
        if not outputs[name].ndim:
            raise invalid_argument(f"Tensor name: {name} has no shape information; ask in column format ('inputs')")
        if length not in (None, len(outputs[name])):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(outputs[name])} expecting: {length}; "
                "ask in column format ('inputs')"
            )
        length = len(outputs[name])
    if len(columns) == 1:
        return _dump({"predictions": columns[names[0]]})
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return _dump({"predictions": rows})


def _values(name, array):
    """What orjson writes for an array: itself, or nested lists."""
    kind = array.dtype.kind
    if kind == "O":
        encode = _as_base64 if name.endswith("_bytes") else _as_text
        flat = np.empty(array.size, object)
        flat[:] = [encode(item) for item in array.ravel()]
        return flat.reshape(array.shape).tolist()
    if kind in "biu" or array.dtype in (np.float32, np.float64):
        return array if array.ndim else array[()]
    if kind == "f" or array.dtype.name == "bfloat16":
        return _values(name, array.astype(np.float32))
    raise invalid_argument(f"Failed to write JSON value for tensor type: {array.dtype.name}")


def _as_base64(item):
    return {"b64": base64.b64encode(item).decode("ascii")}


def _as_text(item):
    return item.decode("utf-8", errors="replace") if isinstance(item, bytes) else item


def _dump(document):
    if _all_finite(document):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY, default=_listed)
    return json.dumps(document, default=lambda array: array.tolist()).encode()


def _all_finite(value):
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    if isinstance(value, list):
        return all(map(_all_finite, value))
    if isinstance(value, np.ndarray | np.floating | float):
        return bool(np.isfinite(value).all())
    return True


def _listed(value):
    """For arrays that orjson does not take itself: those not in C order."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(type(value).__name__)
