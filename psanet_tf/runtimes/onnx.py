"""ONNX files, run by ONNX Runtime."""

import numpy as np

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.model_file import INPUT, METADATA_KEY, ModelFile


class OnnxFile(ModelFile):
    """An ``.onnx`` file; the metadata are the entry `psanet_tf` of its `metadata_props`."""

    def _load(self) -> str | None:
        with needs_extra("onnx", "ONNX"):
            import onnxruntime
        try:
            providers = onnxruntime.get_available_providers()
            self._session = onnxruntime.InferenceSession(str(self.path), providers=providers)
        except Exception as error:  # of the runtime's own kinds, which have no common one
            raise ValueError(f"{self.path} cannot be loaded as an ONNX model: {error}") from None
        return self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)

    def _run(self, images: np.ndarray, outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        return dict(zip(outputs, self._session.run(list(outputs), {INPUT: images}), strict=True))
