"""`psanet export`: a trained network becomes a SavedModel for TensorFlow Serving."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import WEIGHTS, app


class Precision(str, Enum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Implementation(str, Enum):
    STOCK = "stock"
    CUSTOM = "custom"


class Device(str, Enum):
    CPU = "cpu"
    GPU = "gpu"


@app.command()
def export(
    weights: Annotated[str, typer.Option(help=WEIGHTS)],
    out: Annotated[Path, typer.Option(help="Folder of the model; the export becomes its next version, 1, 2, ...")],
    config: Annotated[Path | None, typer.Option(help="Configuration; default: the run folder's config.yaml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. evaluate.flip=false.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="bfloat16 halves the file and is faster where the processor has it.")
    ] = Precision.FLOAT32,
    implementation: Annotated[
        Implementation,
        typer.Option(help="stock: runs in every TensorFlow Serving; custom: needs one with the op PsaMask linked in."),
    ] = Implementation.STOCK,
    device: Annotated[
        Device | None,
        typer.Option(
            help="What will serve it: it runs on both, fastest on this one. Default: gpu if there is one here."
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
    warm_up: Annotated[
        bool, typer.Option(help="Write requests that make a server's first answer as fast as the next.")
    ] = True,
):
    """Write a SavedModel, load it back and compare its answers with the Keras model's.

    Example: psanet export --weights runs/scenes --out models/psanet
    """
    from psanet_tf.export.saved_model import export_saved_model
    from psanet_tf.inference.segmenter import Segmenter
    from psanet_tf.runtimes.model_folder import saved_model_folder

    if saved_model_folder(weights):
        raise ValueError(f"{weights} is exported already; export needs the weights that it was made of")
    segmenter = Segmenter.load(weights, config, overrides or ())
    exported = export_saved_model(
        segmenter.model,
        out,
        segmenter.info,
        evaluate=segmenter.evaluate,
        precision=precision.value,
        implementation=implementation.value,
        whole=whole,
        warm_up=warm_up,
        device=device and device.value,
    )
    agreement = exported.agreement
    size = sum(file.stat().st_size for file in exported.path.rglob("*") if file.is_file())
    print(
        f"loaded back and compared with the Keras model: {agreement.labels:.2%} of the labels equal, "
        f"probabilities differ by at most {agreement.largest:.1e}"
    )
    print(f"the SavedModel ({size / 1e6:.1f} MB, {precision.value}) is in {exported.path}")
    print(f"try it:     psanet serve {out}")
    mount = f"-v {out.resolve()}:/models/{out.name} -e MODEL_NAME={out.name}"
    print(f"production: docker run -p 8501:8501 {mount} tensorflow/serving  (more in export/)")
