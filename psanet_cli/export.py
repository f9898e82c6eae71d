"""`psanet export`: a trained network becomes a model for TensorFlow Serving or other programs."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import WEIGHTS, app


class Format(str, Enum):
    SAVED_MODEL = "saved_model"
    ONNX = "onnx"
    OPENVINO = "openvino"
    LITERT = "litert"


class Precision(str, Enum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


class Implementation(str, Enum):
    STOCK = "stock"
    CUSTOM = "custom"


class Device(str, Enum):
    CPU = "cpu"
    GPU = "gpu"


@app.command()
def export(
    weights: Annotated[str, typer.Option(help=WEIGHTS)],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the model, whose next version, 1, 2, ..., the SavedModel becomes; or the file: .onnx, .xml "
            "(OpenVINO), .tflite (LiteRT)."
        ),
    ],
    format: Annotated[Format | None, typer.Option(help="Default: by the ending of --out.")] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration; default: the run folder's config.yaml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. evaluate.flip=false.")
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(
            help="bfloat16 (SavedModel) and float16 (OpenVINO, LiteRT) halve the file, int8 (these two) quarters it; "
            "faster where the processor has it."
        ),
    ] = Precision.FLOAT32,
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT", help="int8: images, or a folder of them, to set ranges by. Default: 32 training images."
        ),
    ] = None,
    implementation: Annotated[
        Implementation,
        typer.Option(
            help="SavedModel: stock runs in every TensorFlow Serving; custom needs one with the op PsaMask linked in."
        ),
    ] = Implementation.STOCK,
    device: Annotated[
        Device | None,
        typer.Option(
            help="SavedModel: what will serve it; it runs on both, fastest on this one. Default: gpu if one is here."
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="The network, of any size then, sees an image in one piece: resized to base_size, or for "
            "evaluate.protocol=mmseg at its own size.",
        ),
    ] = False,
    pixels_only: Annotated[
        bool,
        typer.Option(
            "--pixels-only",
            help="Only the signatures that take arrays of the crop's size, for a TensorFlow Serving that joins "
            "requests (export/README.md).",
        ),
    ] = False,
    warm_up: Annotated[
        bool, typer.Option(help="SavedModel: requests that make a server's first answer as fast as the next.")
    ] = True,
):
    """Write a model for TensorFlow Serving or other programs, load it back and compare it with the Keras model.

    \b
    Examples:
      psanet export --weights runs/scenes --out models/psanet
      psanet export --weights runs/scenes --out psanet.onnx
      psanet export --weights runs/scenes --out psanet.xml --precision int8
    """
    from psanet_tf.inference.segmenter import Segmenter
    from psanet_tf.runtimes.model_file import exported_model, format_of

    if exported_model(weights):
        raise ValueError(f"{weights} is exported already; export needs the weights that it was made of")
    chosen = format.value if format else format_of(out) or "saved_model"
    if chosen != "saved_model":
        of_saved_models = {"--implementation": implementation is Implementation.CUSTOM, "--device": device is not None}
        of_saved_models["--pixels-only"] = pixels_only
        for option in (name for name, given in of_saved_models.items() if given):
            raise ValueError(f"{option} is for SavedModels, not for --format {chosen}: leave it out")
    if calibration and precision is not Precision.INT8:
        raise ValueError(f"--calibration is for --precision int8, not for {precision.value}: leave it out")
    segmenter = Segmenter.load(weights, config, overrides or ())
    common = {"evaluate": segmenter.evaluate, "precision": precision.value, "whole": whole}
    if chosen == "saved_model":
        kind = (implementation.value, device and device.value, warm_up, pixels_only)
        _export_saved_model(segmenter, out, *kind, common)
    else:
        images = (
            ()
            if precision is not Precision.INT8
            else _images(segmenter, weights, config, overrides, calibration, whole)
        )
        _export_file(segmenter, out, chosen, images, common)


def _export_saved_model(segmenter, out, implementation, device, warm_up, pixels_only, common):
    from psanet_tf.export.saved_model import export_saved_model

    exported = export_saved_model(
        segmenter.model,
        out,
        segmenter.info,
        implementation=implementation,
        warm_up=warm_up,
        device=device,
        pixels_only=pixels_only,
        **common,
    )
    size = sum(file.stat().st_size for file in exported.path.rglob("*") if file.is_file())
    _say(exported, f"the SavedModel ({size / 1e6:.1f} MB, {common['precision']})")
    print(f"try it:     psanet serve {out}")
    mount = f"-v {out.resolve()}:/models/{out.name} -e MODEL_NAME={out.name}"
    print(f"production: docker run -p 8501:8501 {mount} tensorflow/serving  (more in export/)")


def _export_file(segmenter, out, format, images, common):
    from psanet_tf.export.model_file import export_file

    exported = export_file(segmenter.model, out, segmenter.info, format=format, calibration=images, **common)
    files = [exported.path, exported.path.with_suffix(".bin")] if format == "openvino" else [exported.path]
    size = sum(file.stat().st_size for file in files)
    _say(exported, f"the model ({size / 1e6:.1f} MB, {common['precision']})")
    print(f"try it: psanet predict PHOTO.jpg --weights {out}  (its inputs and outputs are described in export/)")


def _say(exported, what):
    agreement = exported.agreement
    maps = "" if agreement.attention is None else f", attention weights by {agreement.attention:.1e} of their sum"
    print(
        f"loaded back and compared with the Keras model: {agreement.labels:.2%} of the labels equal, "
        f"probabilities differ by at most {agreement.largest:.1e}{maps}"
    )
    print(f"{what} is in {exported.path}")


def _images(segmenter, weights, config, overrides, calibration, whole):
    """The images by which an export in int8 is calibrated."""
    from psanet_tf.config import load_config
    from psanet_tf.export.calibration import calibration_images
    from psanet_tf.inference.inputs import find_inputs, is_video
    from psanet_tf.weights.fetch import is_remote
    from psanet_tf.weights.run_folder import config_beside

    if config is None and not is_remote(weights):
        config = config_beside(weights)
    run = None if config is None else load_config(config, overrides or (), needs_root=False)
    files = []
    if calibration:
        found = find_inputs(calibration, Path("predictions"), segmenter.images).files
        files = [file.path for file in found if not is_video(file.path)]
        if not files:
            raise ValueError("--calibration: only videos are given, images are wanted: take frames out of them")
    size = None if whole or segmenter.protocol == "mmseg" else segmenter.model.input_shape[1:3]
    return calibration_images(segmenter, size, run, files)
