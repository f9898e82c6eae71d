"""From a trained network to a file for other programs: ONNX Runtime, OpenVINO, LiteRT."""

import contextlib
import dataclasses
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.export.frozen import frozen_graph
from psanet_tf.export.metadata import expected_bytes, export_metadata
from psanet_tf.export.saved_model import Export
from psanet_tf.export.verification import verify_file
from psanet_tf.files import check_space, file_to_disk, folder_to_disk, no_space_explained
from psanet_tf.folders import hidden_folder
from psanet_tf.inference.whole_image import any_size
from psanet_tf.keras_api import needs_keras_3
from psanet_tf.models import PSANet
from psanet_tf.runtimes.model_file import SUFFIXES, format_of


def export_file(
    model: PSANet,
    path: str | os.PathLike,
    info: DatasetInfo,
    evaluate: EvaluateSection | None = None,
    format: str | None = None,
    precision: str = "float32",
    whole: bool = False,
    calibration: Sequence[np.ndarray] = (),
) -> Export:
    """Writes a network into a file (for OpenVINO a pair), loads it with its runtime, and compares the answers.

    What the file takes and gives, `psanet_tf.runtimes.model_file.ModelFile` says; decoding images and
    labelling those of any size are not in it.

    Args:
        model: `PSANet`, trained.
        path: the file, which must not be there yet: ``.onnx``, ``.xml`` (the weights go into ``.bin`` beside it) or
            ``.tflite``.
        info, evaluate, whole: as of `export_saved_model`; the protocol goes into the metadata.
        format: "onnx", "openvino" or "litert"; default: by the ending of `path`.
        precision: "float32"; or, but for ONNX, "float16", which halves the file, or "int8", which quarters it: both the
            weights and what convolutions compute are integers then, whose ranges the calibration tells.
        calibration: for int8: images [H, W, C] as the network sees them (see `calibration_images`).

    Returns:
        Export.

    Raises:
        ImportError: a package of the format's extra is not installed.
        ValueError: an argument out of its range, another ending, a network that the format has no place for, int8
            without images; or the file does not answer as the Keras model does (nothing is left then).
        FileExistsError: `path` is there.
        OSError: `path` cannot be written, or is on a full disk.
    """
    needs_keras_3("an export")
    path = Path(path)
    format = _checked_format(path, format)
    metadata = export_metadata(model, info, evaluate, precision, "stock", whole, format=format)
    # There is no server whose requests could be bounded.
    unbounded = dict.fromkeys(("max_images", "max_label_pixels", "max_probability_pixels", "max_points"))
    metadata = dataclasses.replace(metadata, device="any", **unbounded)
    converter = importlib.import_module(f"psanet_tf.export.{format}")
    converter.check_converter(precision)
    takes_any_size = metadata.input_size is None
    if takes_any_size and format == "litert":
        raise ValueError(
            "a LiteRT file takes images of one size, but this export (--whole, or evaluate.protocol=mmseg) is of a "
            "network for any: choose --format onnx or openvino, or label by evaluate.protocol=semseg"
        )
    if precision == "int8" and not len(calibration):
        raise ValueError("precision int8 needs images that tell the ranges of what is computed: give calibration")
    companion = path.with_suffix(".bin") if format == "openvino" else None
    for file in (path, companion):
        if file is not None and file.exists():
            raise FileExistsError(f"{file} is there already: choose another name, or remove it")
    network = any_size(model) if takes_any_size else model
    with no_space_explained(path), hidden_folder(path.parent, path.name) as temporary:
        check_space(path, expected_bytes(model, precision))
        file = temporary / path.name
        graph_def = frozen_graph(network, metadata, 1 if format == "litert" else None)
        with _conversion(format):
            converter.write(graph_def, metadata, file, calibration)
        agreement = verify_file(file, model, metadata, calibration)
        # The weights first: a pair is looked for by its other file.
        for target in (companion, path):
            if target is not None:
                file_to_disk(temporary / target.name)
                os.rename(temporary / target.name, target)
        folder_to_disk(path.parent)
    return Export(path, agreement)


@contextlib.contextmanager
def _conversion(format):
    """What a converter raises, within, becomes an error that says what it was doing; each has kinds of its own."""
    try:
        yield
    except (OSError, ValueError, ImportError):
        raise
    except Exception as error:
        raise ValueError(f"the network cannot be converted to {format}: {error}") from error


def _checked_format(path, format):
    if format is not None and format not in SUFFIXES:
        raise ValueError(f"format must be one of {', '.join(SUFFIXES)}, got {format!r}")
    by_name = format_of(path)
    if format is None and by_name is None:
        raise ValueError(f"{path} must end in {', '.join(SUFFIXES.values())}, which says the format")
    if format is not None and by_name != format:
        raise ValueError(f"{path} must end in {SUFFIXES[format]}, as files of {format} do")
    return by_name
