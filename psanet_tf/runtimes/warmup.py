"""The requests in a SavedModel that a server runs before a new version takes real ones."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from psanet_tf.runtimes.protos import serving_apis, to_array
from psanet_tf.runtimes.saved_model import SavedModelSession

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
_MAX_BYTES = 2**30


def read_warm_up(path: str | os.PathLike) -> list[tuple[str, dict[str, np.ndarray]]]:
    """List of (signature name, inputs as name -> array) in the SavedModel folder `path`; empty without the file."""
    source = Path(path) / FILE
    if not source.is_file():
        return []
    apis = serving_apis()
    requests = []
    for record in tf.data.TFRecordDataset(str(source)).as_numpy_iterator():
        request = apis.prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {key: to_array(value, _MAX_BYTES, key) for key, value in request.inputs.items()}
        requests.append((request.model_spec.signature_name, inputs))
    return requests


def replay(session: SavedModelSession) -> int:
    """Runs a `SavedModelSession`'s own warm-up records and returns how many there were.

    Raises:
        ServingError: the model does not take one of them.
    """
    requests = read_warm_up(session.path)
    for signature_name, inputs in requests:
        session.run(signature_name, inputs)
    return len(requests)
