"""The scale at which a network sees things: training takes images as they are, evaluation resizes their long side."""

import dataclasses
import io
import os
import statistics
from collections.abc import Sequence

from psanet_tf.config import Config, DataSection, EvaluateSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.layouts import Example
from psanet_tf.data.readers import list_examples
from psanet_tf.data.records import RecordExample
from psanet_tf.data.stored_values import image_size

# Of the public implementation's configurations, with which the published scores were made.
PAPER_BASE_SIZES = {"ade20k": 512, "voc2012": 512, "cityscapes": 2048}
_LARGEST_RATIO = 1.5
_MEASURED = 500


def median_long_side(examples: Sequence[Example | str | os.PathLike]) -> int | None:
    """Median of rows or columns, whichever are more, of at most 500 images, evenly spread.

    Args:
        examples: list of `Example`, or of paths.

    Returns:
        int, pixels; None if not one of the images can be read.
    """
    count = min(len(examples), _MEASURED)
    sizes = [_long_side(examples[index * len(examples) // count]) for index in range(count)]
    sizes = [size for size in sizes if size is not None]
    return round(statistics.median(sizes)) if sizes else None


def with_long_side(info: DatasetInfo, data: DataSection) -> DatasetInfo:
    """`info` with the long side of the training images of `data`, if it has none and they are there."""
    if info.long_side is not None:
        return info
    try:
        examples = list_examples(data, data.train_split)
    except (OSError, ValueError):
        return info
    return dataclasses.replace(info, long_side=median_long_side(examples))


def with_base_size(evaluate: EvaluateSection, info: DatasetInfo) -> EvaluateSection:
    """An `EvaluateSection` that says what is long side 1.

    Args:
        evaluate: `EvaluateSection`; what it says counts.
        info: DatasetInfo of the network's classes.

    Returns:
        EvaluateSection whose `base_size` is the given one, the paper's for the dataset, or else the median long side
        of the training images.

    Raises:
        ValueError: none of these is known.
    """
    base_size = evaluate.base_size or PAPER_BASE_SIZES.get(info.name) or info.long_side
    if base_size is None:
        raise ValueError(
            "evaluate.base_size: neither the weights nor the training images tell at which scale the network was "
            "trained: set it to the long side of the training images, in pixels"
        )
    return evaluate.model_copy(update={"base_size": base_size})


def scale_warning(
    trained: int | None,
    base_size: int | None,
    seen: int | None = None,
    what: str = "the images",
    protocol: str | None = "semseg",
) -> str | None:
    """What to know where images are seen at another scale than in training.

    Args:
        trained: median long side of the training images, in pixels; None if it is not known.
        base_size: long side to which images are resized; None if they are taken as they are.
        seen: median long side of the images that shall be labelled; None if it is not known.
        what: what to call those.
        protocol: as of `Segmenter`.

    Returns:
        One line with all numbers; None if no two of them differ by more than a factor of 1.5, or too few are known;
        also for protocol "mmseg", whose scale is the shape's of each image.
    """
    resized = base_size or seen
    if (
        protocol == "mmseg"
        or trained is None
        or resized is None
        or not (_differ(trained, resized) or _differ(resized, seen))
    ):
        return None
    how = f"resized to {base_size} (evaluate.base_size)" if base_size else "taken as they are"
    numbers = f"the training images have a long side of {trained} pixels, {what} "
    numbers += f"are {how}" if seen is None else f"one of {seen} and are {how}"
    if not _differ(trained, resized):
        advice = f"right for the same views at another resolution; for things of equal size in pixels set {seen}"
    elif seen is not None and not _differ(resized, seen):
        advice = "right for things of equal size in pixels; for the same views at another resolution "
        advice += f"set {trained}" if base_size else f"resize to {trained}, as it is done without --whole"
    else:
        factor = max(trained, resized) / min(trained, resized)
        advice = f"things look {factor:.1f} times {'smaller' if resized < trained else 'larger'} than in training; "
        advice += f"set evaluate.base_size={trained}"
    return f"{numbers}: {advice}"


def config_scale_warnings(config: Config, info: DatasetInfo) -> list[str]:
    """`scale_warning` of a configuration, before anything is trained: a list of at most one text.

    Args:
        config: Config; its data must be there.
        info: DatasetInfo of its data.

    Raises:
        ValueError, OSError: as `list_examples`.
    """
    data = config.data
    info = with_long_side(info, data)
    if info.long_side is None or config.evaluate.protocol == "mmseg":
        return []
    seen = median_long_side(list_examples(data, data.val_split))
    base_size = with_base_size(config.evaluate, info).base_size
    warning = scale_warning(info.long_side, base_size, seen, f"those of split {data.val_split!r}")
    return [warning] if warning else []


def _differ(first, second):
    return second is not None and max(first, second) > _LARGEST_RATIO * min(first, second)


def _long_side(example):
    if isinstance(example, RecordExample):
        source = io.BytesIO(example.encoded()[0])
    else:
        source = getattr(example, "image_path", example)
    size = image_size(source)
    return size and max(size)
