"""The configuration that comes with an imported dataset: small enough for a CPU or a small GPU, with what to change."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.data.importing.source import SourceImage
from psanet_tf.data.stored_values import image_size

_LARGEST_CROP, _SMALLEST_CROP = 241, 33
_BATCH = 8
_STEPS = 2000  # of the whole training, about
_VALIDATIONS = 20
_MEASURED = 200

_TEXT = """\
# {count} training images in {num_classes} classes, written by {command}.
#   psanet data check --config {config}
#   psanet train --config {config} --run-dir RUN
#   psanet evaluate --weights RUN
# This is a small network for a CPU or a small GPU, from random weights: enough to see that the data are right. For good
# scores take PSANet-50 from trained weights on a GPU (12 GB or more), as the comments say; docs/training.md has more.
data:
  dataset: custom
  root: {root}  # where this folder lies; write the new place here when it is moved
  class_names: classes.txt
{colors}{form}\
  crop_size: [{crop}, {crop}]  # rows and columns of a training crop, 8n+1; with PSANet-50 e.g. [465, 465]
model:
  blocks: [1, 1, 1, 1]  # for PSANet-50 leave out blocks and width
  width: 16
train:
  optimizer: adam  # with PSANet-50 from trained weights: leave out optimizer and learning_rate (SGD, 0.01) ...
  learning_rate: 1e-3
  # init: imagenet  # ... and take this line in
  epochs: {epochs}  # {steps} steps
  validate_every: {every}  # epochs
  batch_size: {batch}  # 16 with PSANet-50; psanet train --dry-run --fit-memory 12GB says what fits
"""


def configuration_text(
    out: Path,
    images: Sequence[SourceImage],
    num_classes: int,
    has_colors: bool,
    form: ImageFormat = PHOTOGRAPHS,
    command: str = "psanet data import",
) -> str:
    """YAML that `load_config` reads.

    Args:
        out: folder of the dataset.
        images: all of the training images.
        num_classes: of the dataset.
        has_colors: whether there is a colors.txt.
        form: what the images are.
        command: that wrote the dataset.
    """
    out = out.absolute()
    batch = min(_BATCH, len(images))
    steps_per_epoch = max(1, len(images) // batch)
    epochs = max(5, min(200, round(_STEPS / steps_per_epoch)))
    return _TEXT.format(
        count=len(images),
        num_classes=num_classes,
        config=out / "dataset.yaml",
        root=json.dumps(str(out), ensure_ascii=False),
        colors="  class_colors: colors.txt\n" if has_colors else "",
        form="" if form.is_photograph else f"  channels: {form.channels}\n  dtype: {form.dtype}\n",
        command=command,
        crop=_crop_size(images),
        epochs=epochs,
        every=max(1, epochs // _VALIDATIONS),
        steps=epochs * steps_per_epoch,
        batch=batch,
    )


def _crop_size(images):
    """Of the form 8n + 1: as large as the median image is high or wide, within what a CPU trains on."""
    step = max(1, len(images) // _MEASURED)
    sides = [min(size) for image in images[::step] if (size := image_size(image.path)) is not None]
    side = min(max(statistics.median(sides) if sides else _LARGEST_CROP, _SMALLEST_CROP), _LARGEST_CROP)
    return int(side - 1) // 8 * 8 + 1
