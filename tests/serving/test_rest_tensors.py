"""JSON of the REST API: what is read, what is written, how errors are worded."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf

from psanet_tf.runtimes.errors import ServingError
from psanet_tf.runtimes.saved_model import Signature, TensorSpec
from psanet_tf.serving.server import rest_tensors
from psanet_tf.serving.server.json_documents import parse_json
from psanet_tf.serving.server.rest_answers import write_outputs
from psanet_tf.serving.server.rest_tensors import COLUMN, ROW, read_inputs, signature_name


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
        ({"inputs": "p"}, STRINGS, {"image_bytes": np.array(b"p", object)}, COLUMN),
        ({"inputs": {"image_bytes": {"b64": "cX Fx\n"}}}, STRINGS, {"image_bytes": np.array(b"qqq", object)}, COLUMN),
        ({"inputs": {"x": [1], "unheard of": {"a": "b"}}}, ONE, {"x": np.array([1], np.uint8)}, COLUMN),
        ({"inputs": [2**64 - 1]}, signature(x="uint64"), {"x": np.array([2**64 - 1], np.uint64)}, COLUMN),
        ({"inputs": [-(2**63)]}, signature(x="int64"), {"x": np.array([-(2**63)], np.int64)}, COLUMN),
        ({"inputs": [True, False]}, signature(x="bool"), {"x": np.array([True, False])}, COLUMN),
        ({"inputs": [2**24 - 1, 1e10]}, signature(x="float32"), {"x": np.float32([2**24 - 1, 1e10])}, COLUMN),
    ],
)
def test_reading(document, wanted, inputs, kind):
    answer, found_kind = read_inputs(parse_json(json.dumps(document).encode()), wanted)
    assert found_kind == kind
    assert sorted(answer) == sorted(inputs)
    for name, array in inputs.items():
        assert answer[name].dtype == array.dtype
        np.testing.assert_array_equal(answer[name], array)


def test_not_a_number_and_infinity_are_taken():
    answer, _ = read_inputs(parse_json(b'{"inputs": [NaN, Infinity, -Infinity]}'), signature(x="float32"))
    np.testing.assert_array_equal(answer["x"], np.array([np.nan, np.inf, -np.inf], np.float32))


def first_of(*pairs):
    return "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}"


@pytest.mark.parametrize(
    "body",
    [
        first_of(("inputs", "[1]"), ("inputs", "[2]")),
        first_of(("inputs", '{"x": [1], "x": [2]}')),
        first_of(("signature_name", '"s"'), ("inputs", '{"x": [1]}'), ("signature_name", "3")),
        first_of(("inputs", r'{"\u0078": [1], "x": [2]}')),
        "\ufeff" + first_of(("inputs", "[1]")),
    ],
)
def test_of_a_repeated_key_the_first_value_counts(body):
    document = parse_json(body.encode())
    assert read_inputs(document, ONE)[0]["x"].tolist() == [1]
    assert signature_name(document) in ("", "s")


@pytest.mark.parametrize(
    ("body", "wanted", "message"),
    [
        (b"", ONE, "JSON Parse error: The document is empty"),
        (b"instances = [1, 2]", ONE, "JSON Parse error: Invalid value"),
        (b'{"instances": [', ONE, "JSON Parse error"),
        (b"[" * 500_000, ONE, "JSON Parse error"),
        (b"\xff\xfe", ONE, "JSON Parse error"),
        ('{"instances": [1]}'.encode("utf-16"), ONE, "JSON Parse error"),
        (rb'{"inputs": "\ud800"}', STRINGS, "JSON Parse error: The surrogate pair in string is invalid"),
        (rb'{"\udfff": 1}', STRINGS, "JSON Parse error: The surrogate pair in string is invalid"),
        (b'{"inputs": [1e999]}', signature(x="float32"), "JSON Parse error"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", signature(x="float32"), "JSON Parse error"),
        (b"[1, 2]", ONE, r"JSON Value: \[1, 2\] Is not object"),
        (b"{}", ONE, "Missing 'inputs' or 'instances' key"),
        (b'{"instances": [1], "inputs": [1]}', ONE, "expecting only one of 'inputs' or 'instances'"),
        (b'{"instances": 3}', ONE, "Excepting 'instances' to be an list/array"),
        (b'{"instances": []}', ONE, "No values in 'instances' array"),
        (b'{"instances": [1, {"x": 1}]}', ONE, "Expecting value/list but got object at item 1"),
        (b'{"instances": [{"x": 1}, 1]}', ONE, "Expecting object but got list at item 1"),
        (b'{"instances": [{"y": 1}]}', ONE, "element: 0 key: y of .* does not have named input: y"),
        (b'{"instances": [{"a": 1}]}', TWO, "keys must be equal to: a,b"),
        (b'{"instances": [{"x": 1, "x": 1}]}', ONE, "keys must be equal to: x"),
        (b'{"instances": [1]}', TWO, "instances is a plain list, but expecting list of objects"),
        (b'{"inputs": [1]}', TWO, "inputs is a plain value/list, but expecting an object"),
        (b'{"inputs": {"a": [1]}}', TWO, "Missing named input: b in 'inputs' object."),
        (b'{"inputs": [1]}', signature(), "Failed to get input map for signature: s"),
        (b'{"instances": [[1], [1, 2]]}', ONE, "element: 1 of .* Expecting tensor size: 1 but got: 2"),
        (b'{"instances": [[1, 2], [[1, 2]]]}', ONE, r"element: 1 of .* Expecting shape \[2\] but got: \[1,2\]"),
        (b'{"instances": [1, [1]]}', ONE, r"Expecting shape \[\] but got: \[1\]"),
        (b'{"inputs": [[1], 1]}', ONE, "found at incorrect level"),
        (b'{"inputs": [1, [1]]}', ONE, "Encountered list at unexpected level"),
        (b'{"inputs": [[1], [1, 2]]}', ONE, "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
        (b'{"inputs": ' + b"[" * 65 + b'"a"' + b"]" * 65 + b"}", STRINGS, "more than 32 lists in one another"),
        (b'{"inputs": ' + b"[" * 1000 + b'"a"' + b"]" * 1000 + b"}", STRINGS, "more than 32 lists|Parse error"),
        (b'{"inputs": [' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"]}", STRINGS, "not formatted correctly"),
        (b'{"instances": [1.5]}', ONE, r"JSON Value: 1.5 Type: Number is not of expected type: uint8"),
        (b'{"instances": [[1], ["a"]]}', ONE, r'JSON Value: "a" Type: String is not of expected type: uint8'),
        (b'{"instances": [null]}', ONE, "JSON Value: null Type: Null is not of expected type: uint8"),
        (b'{"instances": [256]}', ONE, "256 is outside the values of uint8, 0 to 255"),
        (b'{"instances": [-1]}', ONE, "-1 is outside the values of uint8"),
        (b'{"instances": [true]}', ONE, "Type: True is not of expected type: uint8"),
        (b'{"instances": [1]}', signature(x="bool"), "JSON Value: 1 Type: Number is not of expected type: bool"),
        (b'{"inputs": [1.5, true]}', signature(x="float32"), "JSON Value: true Type: True is not of .*: float"),
        (b'{"inputs": [1.0, 16777217]}', signature(x="float32"), "16777217 to float without loss of precision"),
        (b'{"inputs": [1e39]}', signature(x="float32"), "1e\\+39 to float without loss of precision"),
        (b'{"inputs": [9007199254740993]}', signature(x="float64"), "to double without loss of precision"),
        (b'{"instances": [3]}', STRINGS, "JSON Value: 3 Type: Number is not of expected type: string"),
        (b'{"instances": [{"b64": "a*c="}]}', STRINGS, "Unable to base64 decode"),
        (b'{"instances": [{"b64": "\xc3\xbc"}]}', STRINGS, "Unable to base64 decode"),
        (b'{"inputs": {"image_bytes": [{"b65": "aa"}]}}', STRINGS, "not formatted correctly for base64 data"),
        (b'{"inputs": {"image_bytes": [{"b64": "aa", "b64": "aa"}]}}', STRINGS, "not formatted correctly"),
        (b'{"inputs": {"image_bytes": [["a"], "b"]}}', STRINGS, "found at incorrect level"),
    ],
)
def test_errors(body, wanted, message):
    with pytest.raises(ServingError, match=message) as caught:
        document = parse_json(body)
        signature_name(document)
        read_inputs(document, wanted)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert len(caught.value.message) < 500


def test_the_culprit_among_many_elements_is_found_in_few_steps(monkeypatch):
    count = 0
    convert = rest_tensors._to_array

    def counting(*arguments):
        nonlocal count
        count += 1
        return convert(*arguments)

    monkeypatch.setattr(rest_tensors, "_to_array", counting)
    for place in (0, 1, 7_000, 9_999):
        document = {"instances": [[1]] * place + [["a"]] + [[2, 3]] * (9_999 - place)}
        with pytest.raises(ServingError, match=f'element: {place} of .* JSON Value: "a"'):
            read_inputs(document, ONE)
    assert count < 4 * 25


def test_complex_numbers_have_no_json():
    with pytest.raises(ServingError, match="Conversion of JSON Value: .* to type: complex64") as caught:
        read_inputs({"inputs": [1]}, signature(x="complex64"))
    assert caught.value.code == "UNIMPLEMENTED"
    with pytest.raises(ServingError, match="Failed to write JSON value for tensor type: complex64") as caught:
        write_outputs({"x": np.zeros(2, np.complex64)}, ROW)
    assert caught.value.code == "INVALID_ARGUMENT"


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


def test_writing_what_is_alone():
    assert write_outputs({"a": np.array(b"ab", object)}, COLUMN) == b'{"outputs":"ab"}'
    assert write_outputs({"a_bytes": np.array(b"ab", object)}, COLUMN) == b'{"outputs":{"b64":"YWI="}}'
    assert write_outputs({"a": np.float32(0.1)}, COLUMN) == b'{"outputs":0.1}'
    assert write_outputs({"a": np.array(True)}, COLUMN) == b'{"outputs":true}'
    assert write_outputs({"a": np.array(np.nan)}, COLUMN) == b'{"outputs": NaN}'
    assert write_outputs({"a": np.float16([0.5])}, COLUMN) == b'{"outputs":[0.5]}'
    assert write_outputs({"a": np.zeros((0, 2))}, ROW) == b'{"predictions":[]}'


def test_rows_of_different_numbers():
    with pytest.raises(ServingError, match="Tensor name: b has inconsistent batch size: 3 expecting: 2"):
        write_outputs({"a": np.zeros(2), "b": np.zeros(3)}, ROW)
    with pytest.raises(ServingError, match="Tensor name: a has no shape information"):
        write_outputs({"a": np.array(2.0)}, ROW)
    with pytest.raises(ServingError, match="Cannot convert empty tensor map to JSON"):
        write_outputs({}, ROW)
