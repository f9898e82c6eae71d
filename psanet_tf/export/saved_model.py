"""From a trained network to a SavedModel that a stock TensorFlow Serving answers with."""

import contextlib
import dataclasses
import os
from pathlib import Path

import tensorflow as tf

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.export.metadata import expected_bytes, export_metadata
from psanet_tf.export.signatures import ServingModule
from psanet_tf.export.verification import Agreement, verify_export
from psanet_tf.export.warmup import write_warm_up
from psanet_tf.files import check_space
from psanet_tf.folders import atomic_numbered_folder
from psanet_tf.inference.whole_image import any_size
from psanet_tf.keras_api import needs_keras_3
from psanet_tf.models import PSANet
from psanet_tf.ops.op_library import OpUnavailableError
from psanet_tf.ops.psa_mask import psa_mask_implementation
from psanet_tf.runtimes.limits import JOINED_IMAGES
from psanet_tf.runtimes.metadata import ASSET_NAME
from psanet_tf.runtimes.model_folder import versions_on_disk
from psanet_tf.runtimes.protos import serving_apis
from psanet_tf.runtimes.saved_model import signatures_on_disk

BATCHING_FILE = "batching_params.pbtxt"
# TensorFlow Serving's BatchingParameters, text format.
BATCHING = f"""\
max_batch_size {{ value: {JOINED_IMAGES} }}
batch_timeout_micros {{ value: 2000 }}  # how long the first request waits for others
max_enqueued_batches {{ value: 64 }}  # beyond that: UNAVAILABLE, which clients may try again
allowed_batch_sizes: 1  # smaller batches are padded up to one of these, so that few shapes occur
allowed_batch_sizes: 2
allowed_batch_sizes: {JOINED_IMAGES}
"""


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported model: where it is and how it compares with the Keras model (`Agreement`)."""

    path: Path
    agreement: Agreement


def export_saved_model(
    model: PSANet,
    out_dir: str | os.PathLike,
    info: DatasetInfo,
    evaluate: EvaluateSection | None = None,
    precision: str = "float32",
    implementation: str = "stock",
    whole: bool = False,
    warm_up: bool = True,
    device: str | None = None,
    pixels_only: bool = False,
) -> Export:
    """Writes the next version of a model into `out_dir`, loads it back and compares it with the Keras model.

    The folder appears whole or not at all, so that a server that polls `out_dir` never sees half a model. Exports into
    one `out_dir` at the same time become different versions; what a killed one has left there is removed.

    Args:
        model: `PSANet`, trained.
        out_dir: folder of the model; its versions are the folders `1`, `2`, ... in it.
        info: `DatasetInfo`, the classes and the format of the images.
        evaluate: `EvaluateSection`, how images of any size are labelled; default: what the model's file carries, else
            the paper's protocol, with the dataset's base_size (see `with_base_size`). For protocol "mmseg" the
            network is exported for any size.
        precision: "float32" or "bfloat16"; bfloat16 halves the file and uses the matrix units of CPUs (AMX)
            and GPUs that have them; logits are float32 in either.
        implementation: "stock" has stock ops only in the graph; "custom" calls the op `PsaMask`, which a server
            must have linked in.
        whole: the network, exported for any size, sees an image in one piece: for protocol "semseg" resized to
            each scale, for "mmseg" at its own size.
        warm_up: write `assets.extra/tf_serving_warmup_requests`, with which a server answers its first request
            as fast as the others; needs the package tensorflow-serving-api.
        device: what will serve it. "cpu" has float32 convolutions of many channels as sums of products, which is
            the faster form there (see `psanet_tf.ops.convolution`); "gpu" has none. Both run on both. Default: "gpu"
            if TensorFlow sees one here, else "cpu".
        pixels_only: the signatures that take arrays of the network's size alone, and `batching_params.pbtxt` beside
            them, with which a TensorFlow Serving that batches per model joins their requests; files are not labelled.

    Returns:
        Export.

    Raises:
        ImportError: `warm_up` without tensorflow-serving-api; Keras 2.
        ValueError: an argument out of its range, a network that cannot take any size where it has to, classes that do
            not fit the network; or the SavedModel does not answer as the Keras model does (nothing is left then).
        OSError: `out_dir` cannot be written, or is on a full disk.
    """
    needs_keras_3("an export")
    metadata = export_metadata(model, info, evaluate, precision, implementation, whole, device)
    if pixels_only and metadata.input_size is None:
        raise ValueError("pixels_only is for networks of one input size, whose requests can be joined; this takes any")
    if warm_up:
        # Tell now, not after minutes of work.
        serving_apis("an export with warm-up requests (--no-warm-up leaves them out)")
    network = serving_network(model, precision, takes_any_size=metadata.input_size is None)
    out_dir = Path(out_dir)
    first = max(versions_on_disk(out_dir), default=0) + 1
    with atomic_numbered_folder(out_dir, first) as version:
        check_space(out_dir / str(first), expected_bytes(model, precision))
        temporary = version.temporary
        asset = temporary / ASSET_NAME
        asset.write_text(metadata.to_json(), encoding="utf-8")
        with _psa_mask(implementation):
            module = ServingModule(network, metadata, asset, pixels_only)
        with _tensorflow_writes(out_dir):
            tf.saved_model.save(module, str(temporary), signatures=module.signatures())
            asset.unlink()  # it is in assets/ now
            if pixels_only:
                (temporary / BATCHING_FILE).write_text(BATCHING, encoding="utf-8")
            if warm_up:
                write_warm_up(temporary, signatures_on_disk(temporary), metadata)
        agreement = verify_export(temporary, model, metadata)
    return Export(version.path, agreement)


def serving_network(model: PSANet, precision: str, takes_any_size: bool) -> PSANet:
    """The network that is traced: `model` itself, or one with its weights in another precision or for any size."""
    network = any_size(model) if takes_any_size else model
    arguments = network.get_config() | {"dtype": {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]}
    if arguments == network.get_config():
        return network
    other = PSANet.from_config(arguments)
    other.set_weights(network.get_weights())
    return other


@contextlib.contextmanager
def _tensorflow_writes(out_dir):
    """TensorFlow's own errors of writing files, within, become those of Python."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"cannot write an export into {out_dir}: {error.message}") from error


@contextlib.contextmanager
def _psa_mask(implementation):
    try:
        with psa_mask_implementation(implementation):
            yield
    except OpUnavailableError as error:
        raise ValueError(f"implementation 'custom' needs the compiled op: {error}") from error
