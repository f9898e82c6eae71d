"""JSON of the REST API: what is read, what is written, how errors are worded."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.saved_model import Signature, TensorSpec
from psanet_tf.serving.server.rest_tensors import COLUMN, ROW, parse_json, read_inputs, signature_name, write_outputs


def signature(**inputs):
    specs = {name: TensorSpec(f"{name}:0", tf.as_dtype(dtype), (-1,)) for name, dtype in inputs.items()}
    return Signature("s", specs, {}, "")


ONE = signature(x="uint8")
TWO = signature(a="float32", b="string")
STRINGS = signature(image_bytes="string")


@pytest.mark.parametrize(
    ("document", "wanted", "inputs", "kind"),
    [
        ({"instances": [[1, 2], [3, 4]]}, ONE, {"x": np.array([[1, 2], [3, 4]], np.uint8)}, ROW),
        ({"instances": [{"x": [1]}, {"x": [2]}]}, ONE, {"x": np.array([[1], [2]], np.uint8)}, ROW),
        ({"inputs": [5]}, ONE, {"x": np.array([5], np.uint8)}, COLUMN),
        ({"inputs": {"x": [5]}}, ONE, {"x": np.array([5], np.uint8)}, COLUMN),
        ({"inputs": {"x": 5}}, ONE, {"x": np.array(5, np.uint8)}, COLUMN),
        (
            {"instances": [{"a": 1, "b": "p"}, {"a": 2.5, "b": {"b64": "cQ=="}}]},
            TWO,
            {"a": np.array([1, 2.5], np.float32), "b": np.array([b"p", b"q"], object)},
            ROW,
        ),
        ({"instances": [{"b64": "cQ"}]}, STRINGS, {"image_bytes": np.array([b"q"], object)}, ROW),
        ({"instances": [{"image_bytes": {"b64": "cQ=="}}]}, STRINGS, {"image_bytes": np.array([b"q"], object)}, ROW),
        ({"inputs": [["p"], ["ü"]]}, STRINGS, {"image_bytes": np.array([[b"p"], ["ü".encode()]], object)}, COLUMN),
    ],
)
def test_reading(document, wanted, inputs, kind):
    answer, found_kind = read_inputs(parse_json(json.dumps(document)), wanted)
    assert found_kind == kind
    assert sorted(answer) == sorted(inputs)
    for name, array in inputs.items():
        assert answer[name].dtype == array.dtype
        np.testing.assert_array_equal(answer[name], array)


def test_not_a_number_and_infinity_are_taken():
    answer, _ = read_inputs(parse_json(b'{"inputs": [NaN, Infinity, -Infinity]}'), signature(x="float32"))
    np.testing.assert_array_equal(answer["x"], np.array([np.nan, np.inf, -np.inf], np.float32))


@pytest.mark.parametrize(
    ("body", "wanted", "message"),
    [
        (b"", ONE, "JSON Parse error: The document is empty"),
        (b'{"instances": [', ONE, "JSON Parse error"),
        (b"[" * 100_000, ONE, "JSON Parse error"),
        (b"\xff\xfe", ONE, "JSON Parse error"),
        (b"[1, 2]", ONE, r"JSON Value: \[1, 2\] Is not object"),
        (b"{}", ONE, "Missing 'inputs' or 'instances' key"),
        (b'{"instances": [1], "inputs": [1]}', ONE, "expecting only one of 'inputs' or 'instances'"),
        (b'{"instances": 3}', ONE, "Excepting 'instances' to be an list/array"),
        (b'{"instances": []}', ONE, "No values in 'instances' array"),
        (b'{"instances": [1, {"x": 1}]}', ONE, "Expecting value/list but got object at item 1"),
        (b'{"instances": [{"x": 1}, 1]}', ONE, "Expecting object but got list at item 1"),
        (b'{"instances": [{"y": 1}]}', ONE, "keys must be equal to: x"),
        (b'{"instances": [1]}', TWO, "instances is a plain list, but expecting list of objects"),
        (b'{"inputs": [1]}', TWO, "inputs is a plain value/list, but expecting an object"),
        (b'{"inputs": {"a": [1]}}', TWO, "Missing named input: b in 'inputs' object."),
        (b'{"inputs": {"x": [1], "y": [1]}}', ONE, "does not have named input: y"),
        (b'{"instances": [[1], [1, 2]]}', ONE, "input x: lists of different lengths"),
        (b'{"instances": [1.5]}', ONE, r"JSON Value: 1.5 Type: Number is not of expected type: uint8"),
        (b'{"instances": [[1], ["a"]]}', ONE, r'JSON Value: "a" Type: String is not of expected type: uint8'),
        (b'{"instances": [null]}', ONE, "JSON Value: null Type: Null is not of expected type: uint8"),
        (b'{"instances": [256]}', ONE, "256 is outside the values of uint8, 0 to 255"),
        (b'{"instances": [-1]}', ONE, "-1 is outside the values of uint8"),
        (b'{"instances": [true]}', ONE, "Type: True is not of expected type: uint8"),
        (b'{"instances": [3]}', STRINGS, "JSON Value: 3 Type: Number is not of expected type: string"),
        (b'{"instances": [{"b64": "a*c="}]}', STRINGS, "Unable to base64 decode"),
        (b'{"instances": [{"b64": "\xc3\xbc"}]}', STRINGS, "Unable to base64 decode"),
        (b'{"inputs": {"image_bytes": [{"b65": "aa"}]}}', STRINGS, "not formatted correctly for base64 data"),
        (b'{"inputs": {"image_bytes": [["a"], "b"]}}', STRINGS, "Encountered list at unexpected size"),
    ],
)
def test_errors(body, wanted, message):
    with pytest.raises(ServingError, match=message) as caught:
        read_inputs(parse_json(body), wanted)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert len(caught.value.message) < 500


def test_signature_name():
    assert signature_name({}) == ""
    assert signature_name({"signature_name": "attention"}) == "attention"
    with pytest.raises(ServingError, match="'signature_name' key must be a string value"):
        signature_name({"signature_name": 3})


def test_writing():
    labels = np.arange(4, dtype=np.uint8).reshape(2, 2)
    scores = np.array([[0.1, 1], [2, 3]], np.float32)
    assert json.loads(write_outputs({"labels": labels}, ROW)) == {"predictions": labels.tolist()}
    assert json.loads(write_outputs({"labels": labels}, COLUMN)) == {"outputs": labels.tolist()}
    both = {"labels": labels, "scores": scores}
    # The shortest decimal that is the float32, not the longer one that is its double.
    assert b"0.1," in write_outputs(both, COLUMN)
    assert json.loads(write_outputs(both, ROW)) == {
        "predictions": [{"labels": [0, 1], "scores": [0.1, 1]}, {"labels": [2, 3], "scores": [2, 3]}]
    }


def test_writing_strings():
    png = np.array([b"\x89PNG"], object)
    expected = {"b64": base64.b64encode(b"\x89PNG").decode()}
    assert json.loads(write_outputs({"label_bytes": png}, ROW)) == {"predictions": [expected]}
    assert json.loads(write_outputs({"values": np.array([b'"a"'], object)}, COLUMN)) == {"outputs": ['"a"']}


def test_writing_what_json_has_no_number_for():
    answer = write_outputs({"x": np.array([np.nan, np.inf], np.float32)}, COLUMN)
    assert answer == b'{"outputs": [NaN, Infinity]}'


def test_rows_of_different_numbers():
    with pytest.raises(ServingError, match="inconsistent batch sizes"):
        write_outputs({"a": np.zeros(2), "b": np.zeros(3)}, ROW)
    with pytest.raises(ServingError, match="inconsistent batch sizes"):
        write_outputs({"a": np.array(2.0)}, ROW)
