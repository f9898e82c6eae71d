"""LiteRT (TensorFlow Lite) files, run by LiteRT's interpreter."""

import threading

import numpy as np

from psanet_tf.cores import usable_cores
from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.model_file import INPUT, METADATA_KEY, ModelFile


class LitertFile(ModelFile):
    """A ``.tflite`` file; the metadata are the buffer of its metadata entry `psanet_tf`.

    It takes one image at a time; `run` takes any number, one after the other.
    """

    def _load(self) -> str | None:
        with needs_extra("litert", "LiteRT"):
            from ai_edge_litert import schema_py_generated
            from ai_edge_litert.interpreter import Interpreter
        content = self.path.read_bytes()
        try:
            self._interpreter = Interpreter(model_content=content, num_threads=usable_cores())
            self._runner = self._interpreter.get_signature_runner()
            text = _metadata(schema_py_generated.Model.GetRootAsModel(content, 0))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(f"{self.path} cannot be loaded as a LiteRT model: {error}") from None
        self._lock = threading.Lock()
        return text

    def _run(self, images: np.ndarray, outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        with self._lock:
            answers = [self._runner(**{INPUT: image[None]}) for image in images]
            return {name: np.concatenate([answer[name] for answer in answers]) for name in outputs}


def _metadata(model):
    """The text in the buffer of the entry; None where there is none."""
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == METADATA_KEY.encode():
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes().decode()
    return None
