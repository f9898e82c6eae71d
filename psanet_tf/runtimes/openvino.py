"""OpenVINO's IR, run by OpenVINO."""

import json

import numpy as np

from psanet_tf.extras import needs_extra
from psanet_tf.runtimes.model_file import INPUT, METADATA_KEY, ModelFile

RT_INFO = [METADATA_KEY, "metadata"]


class OpenvinoFile(ModelFile):
    """An ``.xml`` file and, beside it, the weights in a ``.bin``; the metadata are its rt_info `psanet_tf/metadata`.

    A model in float32 is computed in float32: left to itself, OpenVINO takes half precision on processors that have it.
    """

    def _load(self) -> str | None:
        with needs_extra("openvino", "OpenVINO"):
            import openvino
        core = openvino.Core()
        try:
            model = core.read_model(self.path)
            text = model.get_rt_info(RT_INFO).astype(str) if model.has_rt_info(RT_INFO) else None
            exact = text is not None and json.loads(text).get("precision") == "float32"
            config = {"INFERENCE_PRECISION_HINT": "f32"} if exact else {}
            self._compiled = core.compile_model(model, "CPU", config)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{self.path} cannot be loaded as an OpenVINO model: {error}") from None
        return text

    def _run(self, images: np.ndarray, outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        answer = self._compiled.create_infer_request().infer({INPUT: images})
        # Copies: what the request answers with is its own.
        return {name: np.array(answer[name]) for name in outputs}
