"""`psanet predict`: labels images, videos, scenes and slides."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import WEIGHTS, app, end_with_failures
from psanet_cli.numbers import numbers


@app.command()
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Images, videos, scenes, slides, folders of them, or quoted patterns."),
    ],
    weights: Annotated[
        str | None,
        typer.Option(help=WEIGHTS),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Instead of weights: a served model, e.g. grpc://127.0.0.1:8500/psanet, encrypted grpcs:// or "
            "https://; repeatable, servers of the same model are asked in turn.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that the server wants (Authorization: Bearer ...).")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(help="PEM file of the authority that signed the server's certificate; default: the system's."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("predictions"),
    config: Annotated[Path | None, typer.Option(help="Configuration; default: the run folder's config.yaml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. evaluate.scales=[0.5,1.0].")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="One pass at the image's own size instead of the sliding window.")
    ] = False,
    submission: Annotated[
        bool, typer.Option("--submission", help="Also write files as the dataset's test server takes them.")
    ] = False,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also write how sure each pixel is, as grey PNGs: 255 is certain.")
    ] = False,
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Also write the probabilities of all classes: float16 [H, W, K] in .npz."),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Label the share of the I-th of N machines only, into a folder that they share; what is there already "
            "is not done again.",
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Of scenes: the bands that are the network's channels, counted from 1, e.g. 4,3,2; default: all.",
        ),
    ] = None,
    scale: Annotated[
        float, typer.Option(help="Of scenes and slides: resize rows and columns by this before they are labelled.")
    ] = 1.0,
    resolution: Annotated[
        float | None,
        typer.Option(
            help="The same by the side of a pixel that the network was trained on: in the unit of the scene's "
            "coordinates, of slides in micrometres.",
        ),
    ] = None,
):
    """Label images of any size: class indices (palette PNG), overlay with legend, and both side by side.

    An image is turned as its orientation tag says. Videos come out as videos, with labels laid over. Folders below a
    folder are not entered; a quoted pattern with ** does that. What is passed over is named at the end.

    Scenes (TIFF with a georeference or of more than 179 million pixels, .vrt, .jp2) and whole-slide images (.svs,
    .ndpi, ...) are read and labelled window by window, their pixels as they are, and come out as GeoTIFF where they
    lie. What was interrupted goes on when the command is given again. Extras: geo, slides.

    \b
    Examples:
      psanet predict photo.jpg --weights mmseg/psanet_r101-d8_4xb4-160k_ade20k-512x512
      psanet predict photo.jpg --weights runs/psanet
      psanet predict 'photos/*.jpg' clip.mp4 --weights runs/psanet --whole --out labelled
      psanet predict photo.jpg --server grpc://127.0.0.1:8500/psanet
      psanet predict scene.tif --weights runs/psanet --resolution 0.2
      psanet predict 'photos/**' --weights runs/psanet --out SHARED/labelled --shard 1/8   (the first of eight machines)
    """
    from psanet_tf.data.scale import median_long_side, scale_warning
    from psanet_tf.inference.image_files import check_gives_probabilities, is_labelled, label_images
    from psanet_tf.inference.inputs import find_inputs, is_video
    from psanet_tf.inference.raster_files import check_labels_rasters, label_rasters, raster_outputs
    from psanet_tf.inference.shards import Shard
    from psanet_tf.inference.shared_results import share_results
    from psanet_tf.rasters import RasterView, is_raster

    view = RasterView(numbers(bands, "--bands"), scale, resolution)
    part = None if shard is None else Shard.parse(shard)
    if part and server:
        raise ValueError("--shard goes with --weights: what a server answers with may change while machines work")
    # Errors now, not when the weights are there and the images are done.
    if any(is_video(file.path) for file in find_inputs(inputs, out).files):
        from psanet_tf.inference.video import pyav

        pyav()
    segmenter = _open(weights, server, token_file, ca, config, overrides or (), whole)
    if confidence or probabilities:
        check_gives_probabilities(segmenter.labelers)
    found = find_inputs(inputs, out, segmenter.images)
    files = found.files
    if any(is_raster(file.path) for file in files):
        check_labels_rasters(segmenter, probabilities, submission)
    elif view != RasterView():
        raise ValueError("--bands, --scale and --resolution are for scenes and slides, of which there are none")
    if part:

        def is_done(file):
            if is_video(file.path):
                return _video_file(file, out).is_file()
            if is_raster(file.path):
                return all(output.is_file() for output in raster_outputs(out, file.name, confidence).values())
            return is_labelled(file, out, confidence, probabilities, submission)

        written = {"submission": submission, "confidence": confidence, "probabilities": probabilities}
        share_results(out, _what_makes_them(segmenter, whole) | written)
        mine = part.take(files, key=lambda file: file.name)
        files = [file for file in mine if not is_done(file)]
        print(f"shard {part}: {len(mine)} of {len(found.files)} files, {len(mine) - len(files)} of them done already")
    labelers, info = segmenter.labelers, segmenter.info
    videos = [file for file in files if is_video(file.path)]
    rasters = [file for file in files if is_raster(file.path)]
    images = [file for file in files if not is_video(file.path) and not is_raster(file.path)]
    seen = median_long_side([file.path for file in images])
    if warning := scale_warning(info.long_side, segmenter.base_size, seen, protocol=segmenter.protocol):
        print(f"warning: {warning}", file=sys.stderr)
    write_also = _submission_writer(out / "submission", info) if submission else None
    also = (write_also, confidence, probabilities)
    failures = label_images(labelers, images, info, out, *also) if images else {}
    failures |= label_rasters(segmenter, rasters, out, view, confidence) if rasters else {}
    for video in videos:
        _label_video(labelers[0], video, out, info, failures)
    for raster in rasters:
        if raster.path not in failures:
            written = raster_outputs(out, raster.name, confidence)
            print(", ".join(f"{kind}: {file}" for kind, file in written.items()))
    if len(images) > sum(path in failures for path in (file.path for file in images)):
        print(f"labels: {out / 'labels'}\noverlays: {out / 'overlays'}\nside by side: {out / 'side_by_side'}")
    for name, wanted in (("confidence", confidence), ("probabilities", probabilities)):
        if wanted and images:
            print(f"{name}: {out / name}{' (of images; a video has labels only)' if videos else ''}")
    if submission and images:
        print(f"for the test server: {out / 'submission'}")
    for line in (line for note in found.notes for line in note.lines()):
        print(line)
    end_with_failures(failures, f"of {len(files)} files could not be read")


def _video_file(video, out):
    return out / "videos" / f"{video.name}.mp4"


def _what_makes_them(segmenter, whole):
    from psanet_tf.weights.files import weights_identity

    evaluate = segmenter.evaluate and segmenter.evaluate.model_dump(mode="json", exclude={"batch_size"})
    return {
        "weights": weights_identity(segmenter.path),
        "evaluate": evaluate,
        "whole": whole,
        "temperature": segmenter.temperature,
        # Weights may come without them: then a configuration says what a label means.
        "classes": list(segmenter.classes),
        "colors": segmenter.colors.tolist(),
        "images": segmenter.images.to_dict(),
    }


def _open(weights, server, token_file, ca, config, overrides, whole):
    if (weights is None) == (not server):
        raise ValueError("give either --weights or --server")
    from psanet_tf.inference.segmenter import Segmenter

    if not server:
        if token_file or ca:
            raise ValueError("--token-file and --ca go with --server")
        return Segmenter.load(weights, config, overrides, whole)
    if config or overrides or whole:
        raise ValueError(
            f"{server[0]} is a served model: its sizes and scales were fixed when it was exported, "
            "so it takes neither a configuration nor overrides nor --whole"
        )
    from psanet_tf.serving.client.labeler import ServedLabeler

    return Segmenter.of_labeler(ServedLabeler(server, token_file and _token(token_file), ca))


def _token(path):
    token = path.read_bytes().strip()
    if not token.isascii() or len(token.split()) != 1:
        raise ValueError(f"{path} must hold one token, a word of ASCII characters, and nothing else")
    return token.decode()


def _submission_writer(folder, info):
    from psanet_tf.evaluation.submission import save_submission

    return lambda name, labels: save_submission(folder / f"{name}.png", labels, info)


def _label_video(labeler, video, out, info, failures):
    from psanet_tf.inference.video import label_video

    target = _video_file(video, out)
    try:
        frames = label_video(labeler, video.path, target, info)
    except ValueError as error:
        failures[video.path] = str(error)
    else:
        print(f"video: {target} ({frames} frames)")
