"""A model in one file, for programs that are not TensorFlow: what all formats have in common, and which is which."""

import abc
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.runtimes.model_folder import saved_model_folder

INPUT = "images"
OUTPUTS = ("labels", "scores", "probabilities")
IMAGE_BOX = "image_box"
METADATA_KEY = "psanet_tf"
# Format -> ending of its file.
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"}


class ModelFile(abc.ABC):
    """A file that `psanet export` wrote, loaded by the runtime that it is for. Thread-safe.

    Its input is `images` [B, H, W, C] of the metadata's dtype, stored values as they are; its outputs are `labels`
    uint8 [B, H, W], `scores` uint8 [B, H, W] (the probability of the label times 255, rounded) and `probabilities`
    float32 [B, H, W, K]. H and W are the network's input size, or anything for a network of any size. Images of other
    sizes are labelled by the metadata's protocol, which is not in the file: `psanet_tf.Segmenter` does it.

    Files of networks with attention have an output for each of the metadata's `directions`, float32 [B, h, w, h, w]:
    the weight with which the destination at the first row and column gathers from the source at the second. So
    ``collect[b, row, column]`` is where a position gathers from, ``distribute[b, :, :, row, column]`` whom it informs.
    `image_box` float32 [B, 4] is (top, left, bottom, right) of the image in map positions, as of the signature
    `attention` of SavedModels.

    Attributes:
        path: the file.
        metadata: `ModelMetadata`.

    Raises:
        ValueError: the file cannot be loaded, or `psanet export` did not write it.
        ImportError: the runtime is not installed; the message says which extra it is.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        text = self._load()
        if text is None:
            raise ValueError(f"{self.path} says nothing of its classes: it was not made by psanet export")
        self.metadata = ModelMetadata.from_json(text)

    def run(self, images: np.ndarray, outputs: Sequence[str] = OUTPUTS) -> dict[str, np.ndarray]:
        """Runs the model.

        Args:
            images: see the class; numbers that an integer dtype lacks are rounded to the nearest that it has.
            outputs: names of those wanted.

        Returns:
            output name -> array.

        Raises:
            ValueError: `images` is of another shape; there is no such output; or the runtime cannot run the model, and
                why.
        """
        there = output_names(self.metadata)
        if unknown := [name for name in outputs if name not in there]:
            raise ValueError(f"outputs must be among {', '.join(there)}, got {', '.join(unknown)}")
        images = np.asarray(images)
        size = self.metadata.input_size or images.shape[1:3]
        if images.ndim != 4 or images.shape[1:] != (*size, self.metadata.channels) or 0 in images.shape:
            expected = ["B", *(self.metadata.input_size or ("H", "W")), self.metadata.channels]
            raise ValueError(f"images must be [{', '.join(map(str, expected))}], got {list(images.shape)}")
        try:
            return self._run(self._stored(images), tuple(outputs))
        except Exception as error:  # of the runtime's own kinds, which have no common one
            raise ValueError(f"{self.path} does not run: {error}") from error

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities float32 [B, H, W, K], which sum to 1 over K; arguments and errors as of `run`."""
        return self.run(images, ("probabilities",))["probabilities"]

    @abc.abstractmethod
    def _load(self) -> str | None:
        """Loads `path`; the metadata in it, or None."""

    @abc.abstractmethod
    def _run(self, images: np.ndarray, outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        """`run` for images of the right shape and dtype."""

    def _stored(self, images):
        dtype = np.dtype(self.metadata.dtype)
        if images.dtype == dtype or dtype.kind == "f":
            return images.astype(dtype, copy=False)
        limits = np.iinfo(dtype)
        return np.clip(np.rint(images), limits.min, limits.max).astype(dtype)


def output_names(metadata: ModelMetadata) -> tuple[str, ...]:
    """The names of the outputs of a file with these metadata."""
    return (*OUTPUTS, *metadata.directions, IMAGE_BOX) if metadata.directions else OUTPUTS


def format_of(path: str | os.PathLike) -> str | None:
    """The format of a model file, by the ending of its name; None for any other, which need not be there."""
    suffix = Path(path).suffix.lower()
    return next((name for name, ending in SUFFIXES.items() if ending == suffix), None)


def is_model_file(path: str | os.PathLike) -> bool:
    """Whether `path` is the file of a format for other programs."""
    return format_of(path) is not None and Path(path).is_file()


def exported_model(path: str | os.PathLike) -> Path | None:
    """What `psanet export` wrote to `path`: the folder of a SavedModel, or a model file; None for anything else."""
    return Path(path) if is_model_file(path) else saved_model_folder(path)


def open_model_file(path: str | os.PathLike) -> ModelFile:
    """The `ModelFile` of a path.

    Raises:
        ValueError: no such ending; else as of `ModelFile`.
        FileNotFoundError: there is no such file.
    """
    name = format_of(path)
    if name is None:
        raise ValueError(f"{path} is no model file: its name must end in {', '.join(SUFFIXES.values())}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    module, kind = {
        "onnx": ("onnx", "OnnxFile"),
        "openvino": ("openvino", "OpenvinoFile"),
        "litert": ("litert", "LitertFile"),
    }[name]
    return getattr(importlib.import_module(f"psanet_tf.runtimes.{module}"), kind)(path)
