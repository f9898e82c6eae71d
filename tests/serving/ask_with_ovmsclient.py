"""Asks a served model with OpenVINO Model Server's client, which brings protos of its own; see test_ovmsclient.py.

    python ask_with_ovmsclient.py GRPC_ADDRESS HTTP_ADDRESS FOLDER

Takes the images of FOLDER/inputs.npz; writes arrays into FOLDER/answers.npz, all else into FOLDER/answers.json. It runs
in an environment that has nothing but `ovmsclient` and what that needs.
"""

import json
import sys
from pathlib import Path

import numpy as np
import ovmsclient
from ovmsclient.tfs_compat.grpc.requests import make_predict_request
from ovmsclient.tfs_compat.grpc.tensors import make_ndarray


def main(grpc_address, http_address, folder):
    folder = Path(folder)
    given = np.load(folder / "inputs.npz")
    images, photo = given["images"], given["photo"].tobytes()
    grpc, http = ovmsclient.make_grpc_client(grpc_address), ovmsclient.make_http_client(http_address)
    arrays, facts = {}, {}
    for protocol, client in (("grpc", grpc), ("http", http)):
        for name, array in client.predict({"images": images}, "psanet", timeout=60).items():
            arrays[f"{protocol} {name}"] = array
        facts[protocol] = {
            "metadata": client.get_model_metadata("psanet"),
            "status": client.get_model_status("psanet"),
            "status of 1": client.get_model_status("psanet", 1),
            "errors": {
                "shape": error_of(client.predict, {"images": images[:, :20]}, "psanet"),
                "dtype": error_of(client.predict, {"images": images.astype(np.float32) + 0.5}, "psanet"),
                "input": error_of(client.predict, {"pictures": images}, "psanet"),
                "model": error_of(client.predict, {"images": images}, "other"),
                "version": error_of(client.get_model_metadata, "psanet", 7),
            },
        }
    for signature, inputs in (("probabilities", {"images": images}), ("predict_bytes", {"image_bytes": [photo]})):
        # The client itself asks for the default signature alone.
        request = make_predict_request(inputs, "psanet").raw_request
        request.model_spec.signature_name = signature
        for name, value in grpc.prediction_service_stub.Predict(request, 60).outputs.items():
            arrays[f"grpc {name}"] = value.string_val[0] if value.string_val else make_ndarray(value)
    arrays["grpc label_bytes"] = np.frombuffer(arrays["grpc label_bytes"], np.uint8)
    np.savez(folder / "answers.npz", **arrays)
    facts["modules"] = sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "psanet_tf"})
    (folder / "answers.json").write_text(json.dumps(facts))


def error_of(function, *arguments):
    """(name of the error's class, its text)."""
    try:
        function(*arguments)
    except Exception as error:
        return type(error).__name__, str(error)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
