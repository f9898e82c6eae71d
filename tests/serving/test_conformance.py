"""The embedded server answers as TensorFlow Serving does: its tests' inputs and answers, over real HTTP and gRPC.

What is asked and expected comes from tensorflow/serving 2.20: util/json_tensor_test.cc, http_rest_api_handler_test.cc,
http_rest_api_util_test.cc, predict_impl_test.cc, get_model_metadata_impl_test.cc, server_core_test.cc and
tensorflow_model_server_test.py in model_servers. What differs on purpose is in export/README.md.
"""

import json
import math

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from google.protobuf import text_format

from psanet_tf.runtimes.protos import serving_apis
from psanet_tf.serving.server.server import Server

ODD = "modelname!#$%&'()*+,/:;=?@[]"
ODD_QUOTED = "modelname%21%23%24%25%26%27%28%29%2A%2B%2C%2F%3A%3B%3D%3F%40%5B%5D"


class Signatures(tf.Module):
    """What TensorFlow Serving's tests have as models: half_plus_two, and signatures that give back what they take."""

    def __init__(self):
        super().__init__()
        spec = lambda dtype, shape=None, name=None: tf.TensorSpec(shape, dtype, name)  # noqa: E731
        self.functions = {
            "serving_default": ({"x": spec(tf.float32, [None, 1])}, lambda x: {"y": 0.5 * x + 2}),
            "ints": ({"default": spec(tf.int32)}, lambda default: {"default": default + 0}),
            "floats": ({"default": spec(tf.float32)}, lambda default: {"default": default + 0}),
            "doubles": ({"default": spec(tf.float64)}, lambda default: {"default": default + 0}),
            "bools": ({"default": spec(tf.bool)}, lambda default: {"default": tf.logical_not(default)}),
            "unsigned": ({"default": spec(tf.uint64)}, lambda default: {"default": tf.identity(default)}),
            "strings": ({"default": spec(tf.string)}, lambda default: {"text": tf.identity(default)}),
            "bytes": ({"default": spec(tf.string)}, lambda default: {"str_tensor_bytes": tf.identity(default)}),
            "named": (
                {
                    "int_tensor": spec(tf.int32),
                    "str_tensor": spec(tf.string),
                    "float_tensor": spec(tf.float32),
                    "dbl_tensor": spec(tf.float64),
                },
                lambda **inputs: {name: tf.identity(value) for name, value in inputs.items()},
            ),
            "lengths": ({"x": spec(tf.int32)}, lambda x: {"a": x + 0, "b": tf.concat([x, x], 0)}),
            "no_batch": ({"x": spec(tf.int32)}, lambda x: {"sum": tf.reduce_sum(x)}),
            "complex_out": ({"x": spec(tf.float32)}, lambda x: {"tensor": tf.complex(x, x)}),
            "complex_in": ({"x": spec(tf.complex64)}, lambda x: {"tensor": tf.math.real(x)}),
            "refuses": ({"x": spec(tf.float32, [None, 2])}, lambda x: {"y": tf.reshape(x, [-1, 2]) + tf.ones([3, 2])}),
        }

    def save(self, folder):
        signatures = {}
        for name, (specs, body) in self.functions.items():
            named = {key: tf.TensorSpec(spec.shape, spec.dtype, key) for key, spec in specs.items()}
            signatures[name] = tf.function(body, autograph=False).get_concrete_function(**named)
        tf.saved_model.save(self, str(folder), signatures=signatures)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conformance") / "default"
    folder.mkdir()
    Signatures().save(folder / "00000123")
    with Server(folder, rest_port=0, grpc_port=0, labels={"stable": 123}) as server:
        yield server


@pytest.fixture(scope="module")
def http(served):
    with requests.Session() as session:

        def ask(method, path, body=None):
            return session.request(method, f"http://127.0.0.1:{served.rest_port}{path}", data=body, timeout=30)

        yield ask


@pytest.fixture(scope="module")
def channel(served):
    with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel:
        yield channel


def same(answer, expected):
    if isinstance(expected, dict):
        return (
            isinstance(answer, dict)
            and set(answer) == set(expected)
            and all(same(answer[key], expected[key]) for key in expected)
        )
    if isinstance(expected, list):
        return isinstance(answer, list) and len(answer) == len(expected) and all(map(same, answer, expected))
    if isinstance(expected, float) and math.isnan(expected):
        return isinstance(answer, float) and math.isnan(answer)
    return type(answer) is type(expected) and answer == expected


NAMED_ROWS = """{"signature_name": "named", "instances": [
    {"int_tensor": [[1,2],[3,4],[5,6]], "str_tensor": ["foo", "bar"], "float_tensor": [1.0, NaN], "dbl_tensor": [NaN]},
    {"int_tensor": [[7,8],[9,0],[1,2]], "str_tensor": ["baz", "bat"], "float_tensor": [2.0, Infinity],
     "dbl_tensor": [2.0]}]}"""
NAMED_COLUMNS = """{"signature_name": "named", "inputs": {"int_tensor": [[[1,2],[3,4],[5,6]]], "dbl_tensor": [8.0, 9],
    "str_tensor": ["foo", "bar"], "float_tensor": [[1.0], [-Infinity]]}}"""

PREDICTIONS = [
    # tensorflow_model_server_test.py, http_rest_api_handler_test.cc
    ('{"instances": [2.0, 3.0, 4.0]}', {"predictions": [3.0, 3.5, 4.0]}),
    ('{"inputs": [2.0, 3.0, 4.0]}', {"outputs": [3.0, 3.5, 4.0]}),
    ('{"instances": [[1.0, 2.0], [3.0, 4.0]]}', {"predictions": [[2.5, 3.0], [3.5, 4.0]]}),
    ('{"signature_name": "serving_default", "instances": [3.0, 4.0]}', {"predictions": [3.5, 4.0]}),
    ('{"signature_name": "serving_default", "inputs": [3.0, 4.0]}', {"outputs": [3.5, 4.0]}),
    ('{"instances": [{"x": 1.0}, {"x": 2}]}', {"predictions": [2.5, 3.0]}),
    ('{"inputs": {"x": 2.0, "other": "is not looked at"}}', {"outputs": 3.0}),
    ('{"inputs": {"x": [2.0], "x": [4.0]}}', {"outputs": [3.0]}),
    ('{"instances": [2.0], "instances": [4.0]}', {"predictions": [3.0]}),
    # json_tensor_test.cc: reading
    ('{"signature_name": "ints", "instances": [[1,2],[3,4],[5,6]]}', {"predictions": [[1, 2], [3, 4], [5, 6]]}),
    ('{"signature_name": "ints", "instances": [[1,2]]}', {"predictions": [[1, 2]]}),
    ('{"signature_name": "ints", "inputs": {"default": [[[1,2],[3,4],[5,6]]]}}',
     {"outputs": [[[1, 2], [3, 4], [5, 6]]]}),
    ('{"signature_name": "ints", "inputs": [[[1,2],[3,4],[5,6]]]}', {"outputs": [[[1, 2], [3, 4], [5, 6]]]}),
    ('{"signature_name": "ints", "instances": [1, 2, 3, 4, 5]}', {"predictions": [1, 2, 3, 4, 5]}),
    ('{"signature_name": "floats", "instances": [1, 2.0, 3, 0.5, 0.0]}', {"predictions": [1.0, 2.0, 3.0, 0.5, 0.0]}),
    ('{"signature_name": "doubles", "instances": [1.0, 2, 0.662, 0]}', {"predictions": [1.0, 2.0, 0.662, 0.0]}),
    ('{"signature_name": "bools", "instances": [true, false]}', {"predictions": [False, True]}),
    ('{"signature_name": "unsigned", "inputs": [18446744073709551615]}', {"outputs": [18446744073709551615]}),
    ('{"signature_name": "strings", "instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]}',
     {"predictions": ["hello", "world"]}),
    ('{"signature_name": "strings", "instances": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]}',
     {"predictions": [["hello"], ["world"]]}),
    ('{"signature_name": "strings", "instances": [{"default": [[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]}]}',
     {"predictions": [[["hello"], ["world"]]]}),
    ('{"signature_name": "strings", "inputs": {"b64": "aGVsbG8="}}', {"outputs": "hello"}),
    ('{"signature_name": "strings", "inputs": "scalar"}', {"outputs": "scalar"}),
    (NAMED_ROWS, {"predictions": [
        {"int_tensor": [[1, 2], [3, 4], [5, 6]], "str_tensor": ["foo", "bar"], "float_tensor": [1.0, math.nan],
         "dbl_tensor": [math.nan]},
        {"int_tensor": [[7, 8], [9, 0], [1, 2]], "str_tensor": ["baz", "bat"], "float_tensor": [2.0, math.inf],
         "dbl_tensor": [2.0]}]}),
    (NAMED_COLUMNS, {"outputs": {"int_tensor": [[[1, 2], [3, 4], [5, 6]]], "dbl_tensor": [8.0, 9.0],
                                 "str_tensor": ["foo", "bar"], "float_tensor": [[1.0], [-math.inf]]}}),
    # and writing
    ('{"signature_name": "bytes", "instances": [["hello", "world"], ["tf", "serving"]]}',
     {"predictions": [[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}], [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}]]}),
    ('{"signature_name": "floats", "instances": [[NaN, Infinity], [3, -Infinity]]}',
     {"predictions": [[math.nan, math.inf], [3.0, -math.inf]]}),
    ('{"signature_name": "floats", "instances": [9000000, 999999, 0.5, 0.0003, 0.00003, 555557.5]}',
     {"predictions": [9e6, 999999.0, 0.5, 0.0003, 3e-05, 555557.5]}),
    ('{"signature_name": "lengths", "inputs": [1, 2]}', {"outputs": {"a": [1, 2], "b": [1, 2, 1, 2]}}),
    ('{"signature_name": "no_batch", "inputs": [1, 2]}', {"outputs": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), PREDICTIONS)
def test_predictions(http, body, expected):
    answer = http("POST", "/v1/models/default:predict", body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert same(json.loads(answer.text), expected), answer.text


REFUSALS = [
    ("", 400, "JSON Parse error: The document is empty"),
    ("instances = [1, 2]", 400, "JSON Parse error: Invalid value"),
    ('{"instances": ["x", "y"]}', 400, "not of expected type: float"),
    ('{"signature_name": 100}', 400, "'signature_name' key must be a string value."),
    ('{"signature_name": 5, "instances": [[1,2],[3,4],[5,6,7]]}', 400, "must be a string value"),
    ('{"signature_name": "nothing", "instances": [1]}', 400, 'Serving signature name: "nothing" not found in'),
    ('{"signature_name": "ints", "instances": [[1]], "inputs": [[1]]}', 400, "Not formatted correctly"),
    ('{"signature_name": "ints", "instances": [[1,2],[3,4],[5,6,7]]}', 400, "Expecting tensor size"),
    ('{"signature_name": "ints", "instances": [[1,2],[3,4],[[5,6]]]}', 400, "Expecting shape"),
    ('{"signature_name": "ints", "instances": [1, [1]]}', 400, "Expecting shape"),
    ('{"signature_name": "ints", "instances": [[1,2],["a", "b"]]}', 400, "not of expected type"),
    ('{"signature_name": "ints", "instances": [1.0]}', 400, "not of expected type: int32"),
    ('{"signature_name": "ints", "instances": [2147483648]}', 400, "not of expected type: int32"),
    ('{"signature_name": "floats", "instances": [1.7976931348623157e308]}', 400, "loss of precision"),
    ('{"signature_name": "floats", "instances": [16777217]}', 400, "loss of precision"),
    ('{"signature_name": "doubles", "instances": [9007199254740993]}', 400, "loss of precision"),
    ('{"signature_name": "floats", "instances": [1.5, true]}', 400, "not of expected type: float"),
    ('{"signature_name": "bools", "instances": [1]}', 400, "not of expected type: bool"),
    ('{"signature_name": "strings", "instances": [1]}', 400, "not of expected type: string"),
    ('{"signature_name": "strings", "instances": [{"b64": "*"}]}', 400, "Unable to base64 decode"),
    ('{"signature_name": "strings", "instances": [[{"b64": 1}]]}', 400, "not formatted correctly for base64 data"),
    (NAMED_ROWS.replace("[[7,8],[9,0],[1,2]]", "[[[7,8],[9,0],[1,2]]]"), 400, "Expecting shape"),
    (NAMED_ROWS.replace("[[7,8],[9,0],[1,2]]", "[[7,8],[9,0]]"), 400, "Expecting tensor size"),
    (NAMED_ROWS.replace("]},\n", "]}, [1, 20, 30],\n"), 400, "Expecting object but got list"),
    (NAMED_ROWS.replace('"dbl_tensor": [NaN]', '"int_tensor": [1]'), 400, "keys must be equal to"),
    (NAMED_ROWS.replace('"dbl_tensor"', '"other"'), 400, "does not have named input: other"),
    ('{"signature_name": "strings", "instances": [["baz", "bar"], {"default": ["baz", "bat"]}]}', 400,
     "Expecting value/list but got object"),
    ('{"signature_name": "named", "instances": [1]}', 400, "instances is a plain list, but expecting list of objects"),
    ('{"signature_name": "named", "inputs": [1]}', 400, "inputs is a plain value/list, but expecting an object"),
    ('{"signature_name": "named", "inputs": {"int_tensor": [1]}}', 400, "Missing named input"),
    ('{"signature_name": "lengths", "instances": [1, 2]}', 400, "inconsistent batch size"),
    ('{"signature_name": "no_batch", "instances": [1, 2]}', 400, "no shape information"),
    ('{"signature_name": "complex_out", "instances": [1, 2]}', 400, "tensor type: complex64"),
    ('{"signature_name": "complex_in", "instances": [1, 2]}', 501, "Conversion of JSON Value"),
    ('{"signature_name": "refuses", "inputs": [[1, 2], [3, 4]]}', 400, ""),
    ('{"signature_name": "refuses", "inputs": [1, 2, 3]}', 400,
     "must be float32 [-1,2] (-1: any length), got float32 [3]"),
    ("[]", 400, "Is not object"),
    ("{}", 400, "Missing 'inputs' or 'instances' key"),
    ('{"instances": {}}', 400, "Excepting 'instances' to be an list/array"),
    ('{"instances": []}', 400, "No values in 'instances' array"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "message"), REFUSALS)
def test_refusals(http, body, status, message):
    answer = http("POST", "/v1/models/default:predict", body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


STATUS = {"model_version_status": [
    {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
]}  # fmt: skip
MALFORMED = "Malformed request"

PATHS = [
    ("GET", "/v1/models/default", 200, STATUS),
    ("GET", "/v1/models/default/versions/123", 200, STATUS),
    ("GET", "/v1/models/default/versions/00000123", 200, STATUS),
    ("GET", "/v1/models/default/labels/stable", 200, STATUS),
    ("GET", "/v1/models/default/labels/unheard", 200, STATUS),  # a label chooses nothing in status requests
    ("GET", "/V1/Models/default", 200, STATUS),
    ("POST", "/v1/models/default/versions/123:predict", 200, {"predictions": [2.5]}),
    ("POST", "/v1/models/default/labels/stable:predict", 200, {"predictions": [2.5]}),
    ("POST", "/v1/models/default/labels/stable:PREDICT", 200, {"predictions": [2.5]}),
    ("GET", "/v1/foo", 400, MALFORMED),
    ("POST", "/v1/foo", 400, MALFORMED),
    ("GET", "/v1/models", 400, "Missing model name"),
    ("GET", "/v1/models/debug/model_name", 400, MALFORMED),
    ("POST", "/v1/models", 400, MALFORMED),
    ("GET", "/v1/models/foo:predict", 400, MALFORMED),
    ("GET", "/v1/models/foo/version/50:predict", 400, MALFORMED),
    ("POST", "/v1/models/foo/version/50:regress", 400, MALFORMED),
    ("POST", "/v1/models/foo/versions/HELLO:regress", 400, MALFORMED),
    ("POST", "/v1/models/foo/versions/18446744073709551615:predict", 400, "Failed to convert version"),
    ("GET", "/v1/models/foo/versions/" + 5000 * "9", 400, "Failed to convert version"),
    ("POST", "/v1/models/foo/metadata", 400, MALFORMED),
    ("POST", "/v1/models/foo/label/some_label:regress", 400, MALFORMED),
    ("POST", "/v1/models/foo/versions/50/labels/some_label:regress", 400, MALFORMED),
    ("POST", "/v1/models/foo/versions/some_label:regress", 400, MALFORMED),
    ("PUT", "/v1/models/default:predict", 400, MALFORMED),
    ("POST", "/v1/models/foo:predict", 404, "Servable not found for request: Latest(foo)"),
    ("POST", "/v1/models/foo/versions/50:predict", 404, "Servable not found for request: Specific(foo, 50)"),
    ("POST", "/v1/models/default99:predict", 404, "Servable not found"),
    ("POST", "/v1/models/default/versions/99:predict", 404, "Servable not found for request: Specific(default, 99)"),
    ("POST", "/v1/models/default/labels/unheard:predict", 400, "Unrecognized servable version label: unheard"),
    ("GET", "/v1/models/foo", 404, "Could not find any versions of model foo"),
    ("GET", "/v1/models/default/versions/9", 404, "Could not find version 9 of model default"),
    ("GET", "/v1/models/foo/metadata", 404, "Servable not found"),
    ("POST", f"/v1/models/{ODD_QUOTED}:predict", 404, f"Latest({ODD})"),
    ("POST", f"/v1/models/{ODD_QUOTED}/labels/{ODD_QUOTED}:predict", 400, f"version label: {ODD}"),
    ("GET", "/statuspage", 404, "nothing is at /statuspage"),
    ("GET", "/index", 404, "nothing is at /index"),
    ("POST", "/v2/models/default/infer", 404, "nothing is at"),
]


@pytest.mark.parametrize(("method", "path", "status", "expected"), PATHS)
def test_paths(http, method, path, status, expected):
    answer = http(method, path, '{"instances": [1.0]}' if method == "POST" else None)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json() == expected
    else:
        assert expected in answer.json()["error"]


def test_metadata(http):
    answer = http("GET", "/v1/models/default/metadata").json()
    assert answer["model_spec"] == {"name": "default", "signature_name": "", "version": "123"}
    assert list(answer["metadata"]) == ["signature_def"]
    assert list(answer["metadata"]["signature_def"]) == ["signature_def"]  # no "@type"
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    half_plus_two = signatures["serving_default"]
    assert half_plus_two["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False},
        "name": "serving_default_x:0",
    }
    assert half_plus_two["method_name"] == "tensorflow/serving/predict"
    assert half_plus_two["defaults"] == {}
    assert signatures["ints"]["inputs"]["default"]["tensor_shape"] == {"dim": [], "unknown_rank": True}
    initialization = signatures["__saved_model_init_op"]
    assert initialization["outputs"]["__saved_model_init_op"]["dtype"] == "DT_INVALID"
    assert initialization["inputs"] == {}


PREDICT = 'model_spec { name: "default" } inputs { key: "x" value { dtype: DT_FLOAT float_val: 2.0 '
PREDICT += "tensor_shape { dim { size: 1 } } } } "


@pytest.mark.parametrize("further", ["", 'output_filter: "y"'])
@pytest.mark.parametrize("which", ["", "version { value: 123 }", "version { value: 0 }", 'version_label: "stable"'])
def test_grpc_predictions(channel, which, further):
    apis = serving_apis()
    text = PREDICT.replace('"default"', f'"default" {which}') + further
    request = text_format.Parse(text, apis.predict_pb2.PredictRequest())
    answer = apis.prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)
    assert list(answer.outputs) == ["y"]
    assert answer.outputs["y"].dtype == tf.float32.as_datatype_enum
    assert tf.make_ndarray(answer.outputs["y"]).tolist() == [3.0]
    spec = answer.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("default", "serving_default", 123)


GRPC_REFUSALS = [
    ("Predict", "", "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("Predict", "model_spec {}", "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ("Predict", 'model_spec { name: "test" }', "NOT_FOUND", "Servable not found for request: Latest(test)"),
    ("Predict", PREDICT.replace('"default"', '"default" version { value: 5 }'), "NOT_FOUND", "Specific(default, 5)"),
    ("Predict", PREDICT.replace('"default"', '"default" version_label: "no"'), "INVALID_ARGUMENT", "version label: no"),
    ("Predict", PREDICT.replace('"default"', '"default" signature_name: "no"'), "FAILED_PRECONDITION",
     'Serving signature key "no" not found'),
    ("Predict", 'model_spec { name: "default" }', "INVALID_ARGUMENT", "input size does not match signature: 0!=1"),
    ("Predict", PREDICT.replace('key: "x"', 'key: "z"'), "INVALID_ARGUMENT", "Missing but required: {x}"),
    ("Predict", PREDICT + 'output_filter: "output_filter"', "INVALID_ARGUMENT",
     "output tensor alias not found in signature: output_filter Outputs expected to be in the set {y}."),
    ("Predict", PREDICT + 'output_filter: "y" output_filter: "y"', "INVALID_ARGUMENT",
     "duplicate output tensor alias: y"),
    ("Predict", PREDICT.replace("DT_FLOAT float_val", "DT_DOUBLE double_val"), "INVALID_ARGUMENT", "float32"),
    ("GetModelMetadata", "", "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("GetModelMetadata", 'model_spec { name: "default" }', "INVALID_ARGUMENT", "at least one metadata_field"),
    ("GetModelMetadata", 'model_spec { name: "default" } metadata_field: "stuff"', "INVALID_ARGUMENT", "stuff is not"),
    ("GetModelMetadata", 'model_spec { name: "test" } metadata_field: "signature_def"', "NOT_FOUND",
     "Servable not found"),
    ("GetModelStatus", "", "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("GetModelStatus", 'model_spec { name: "test" }', "NOT_FOUND", "Could not find any versions of model test"),
    ("GetModelStatus", 'model_spec { name: "default" version { value: 5 } }', "NOT_FOUND", "Could not find version 5"),
    ("HandleReloadConfigRequest", "", "INVALID_ARGUMENT", "Only ModelConfigList is currently supported"),
]  # fmt: skip


def call(channel, method, text):
    apis = serving_apis()
    kinds = {
        "Predict": ("Prediction", apis.predict_pb2.PredictRequest),
        "GetModelMetadata": ("Prediction", apis.get_model_metadata_pb2.GetModelMetadataRequest),
        "GetModelStatus": ("Model", apis.get_model_status_pb2.GetModelStatusRequest),
        "HandleReloadConfigRequest": ("Model", apis.model_management_pb2.ReloadConfigRequest),
    }
    service, kind = kinds[method]
    stub = {
        "Prediction": apis.prediction_service_pb2_grpc.PredictionServiceStub,
        "Model": apis.model_service_pb2_grpc.ModelServiceStub,
    }[service](channel)
    return getattr(stub, method)(text_format.Parse(text, kind()), timeout=30)


@pytest.mark.parametrize(("method", "text", "code", "message"), GRPC_REFUSALS)
def test_grpc_refusals(channel, method, text, code, message):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, text)
    assert caught.value.code().name == code
    assert message in caught.value.details()


@pytest.mark.parametrize("which", ["", "version { value: 123 }", 'version_label: "unheard"'])
def test_grpc_status(channel, which):
    answer = call(channel, "GetModelStatus", f'model_spec {{ name: "default" {which} }}')
    (status,) = answer.model_version_status
    assert (status.version, status.state, status.status.error_code) == (123, 30, 0)


def test_grpc_metadata(channel, served):
    answer = call(channel, "GetModelMetadata", 'model_spec { name: "default" } metadata_field: "signature_def"')
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("default", 123)
    assert list(answer.metadata) == ["signature_def"]
    signatures = serving_apis().get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    with served.versions.use("default") as servable:
        assert dict(signatures.signature_def) == servable.signature_defs


def test_the_requests_of_openvinos_client(http):
    """ovmsclient 2023: version 0 where none is chosen, all inputs by name, strings in base64."""
    assert http("GET", "/v1/models/default/versions/0").json() == STATUS
    answer = http("GET", "/v1/models/default/versions/0/metadata").json()
    assert answer["model_spec"]["version"] == "123"
    body = json.dumps({"inputs": {"x": np.array([[2.0]]).tolist()}})
    assert http("POST", "/v1/models/default/versions/0:predict", body).json() == {"outputs": [[3.0]]}
    body = json.dumps({"signature_name": "strings", "inputs": {"default": [{"b64": "aGVsbG8="}]}})
    assert http("POST", "/v1/models/default/versions/0:predict", body).json() == {"outputs": ["hello"]}


def test_the_requests_of_kserves_client(http):
    """kserve 0.15, protocol v1: liveness at the root, compact JSON without a content type."""
    assert http("GET", "/").json() == {"status": "alive"}
    assert http("POST", "/v1/models/default:predict", b'{"instances":[[2.0]]}').json() == {"predictions": [[3.0]]}
