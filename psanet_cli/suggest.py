"""`psanet suggest`: which images to label next."""

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import WEIGHTS, app, end_with_failures


class Measure(str, Enum):
    MARGIN = "margin"
    ENTROPY = "entropy"


@app.command()
def suggest(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Images, folders of them, quoted patterns.")],
    weights: Annotated[str, typer.Option(help=WEIGHTS)],
    out: Annotated[Path, typer.Option(help="Folder for results, which must not be there.")] = Path("suggestions"),
    count: Annotated[int, typer.Option(help="How many images to suggest at most.")] = 50,
    measure: Annotated[
        Measure, typer.Option(help="Of a pixel: the lead of the first class over the second, or all classes' entropy.")
    ] = Measure.MARGIN,
    balanced: Annotated[bool, typer.Option("--balanced", help="Pixels of rare classes count for more.")] = False,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Only pixels taken for this class count; may be repeated."),
    ] = None,
    similarity: Annotated[
        float, typer.Option(help="Images more alike than this (0 to 1) to a better one are left out; 1 keeps all.")
    ] = 0.92,
    image_url: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX",
            help="What Label Studio asks for an image by, before its name; default: its own machine's files.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration; default: the run folder's config.yaml.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. evaluate.flip=false.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="One pass at the image's own size instead of the sliding window.")
    ] = False,
):
    """Rank unlabelled images by what labelling them would teach, and label the first ones to be corrected.

    Those come first of which the network is least sure; of images that look alike only the best one is taken. Writes a
    list and a page of them, copies named by rank, and the network's labels for CVAT and Label Studio.

    \b
    Examples:
      psanet suggest photos --weights runs/psanet --count 50
      psanet suggest 'drive/**' --weights runs/psanet --balanced --measure entropy --out round2
    """
    from psanet_tf.data.scale import median_long_side, scale_warning
    from psanet_tf.inference.inputs import find_inputs, is_video
    from psanet_tf.inference.segmenter import Segmenter
    from psanet_tf.inference.suggestion import suggest as rank

    find_inputs(inputs, out)  # errors now, not when the weights are there
    segmenter = Segmenter.load(weights, config, overrides or (), whole)
    found = find_inputs(inputs, out, segmenter.images)
    images = [file for file in found.files if not is_video(file.path)]
    if not images:
        raise ValueError("only videos are given: take frames out of them (ffmpeg -i clip.mp4 -r 1 frame_%04d.png)")
    seen = median_long_side([file.path for file in images])
    if warning := scale_warning(segmenter.info.long_side, segmenter.base_size, seen, protocol=segmenter.protocol):
        print(f"warning: {warning}", file=sys.stderr)
    arguments = (out, count, measure.value, balanced, classes or (), similarity, image_url)
    suggestions, failures = rank(segmenter, images, *arguments)
    left_out = sum(suggestion.look_alikes for suggestion in suggestions)
    looks = "looks" if left_out == 1 else "look"
    print(f"{len(suggestions)} of {len(images)} images suggested, {left_out} that {looks} like one of them left out")
    print(f"page: {out / 'suggestions.html'}\nlist: {out / 'suggestions.csv'}\nimages: {out / 'images'}")
    print(f"labels for CVAT: {out / 'cvat_masks.zip'} (labels of the task: {out / 'cvat_labels.json'})")
    print(f"labels for Label Studio: {out / 'label_studio.json'} (interface: {out / 'label_studio.xml'})")
    if videos := len(found.files) - len(images):
        print(f"{videos} videos passed over: take frames out of them")
    for line in (line for note in found.notes for line in note.lines()):
        print(line)
    end_with_failures(failures, f"of {len(images)} images could not be read")
