"""Weights of the classes from how often they occur in the training labels."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from psanet_tf.config import Config, DataSection
from psanet_tf.cores import usable_cores
from psanet_tf.data.catalog import DatasetInfo, info_of
from psanet_tf.data.pixels import decode_label
from psanet_tf.data.readers import list_examples, read_label
from psanet_tf.data.records import RecordExample
from psanet_tf.files import atomic_file
from psanet_tf.progress import track

_DIGITS = 6


def median_frequency_weights(counts: np.ndarray) -> list[float]:
    """Median-frequency balancing (Eigen and Fergus, ICCV 2015, section 6.3.2).

    The frequency of a class is the number of its pixels over the labelled pixels of the images that it is in; its
    weight is the median of the frequencies over its own.

    Args:
        counts: [N, K] integers, pixels of each class in each image.

    Returns:
        K numbers of six digits; 1, the weight of a class of median frequency, for classes that no image has.
    """
    counts = np.asarray(counts, np.float64)
    pixels = counts.sum(axis=0)
    labelled = ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0)
    there = pixels > 0
    if not there.any():
        return [1.0] * counts.shape[1]
    frequencies = pixels[there] / labelled[there]
    weights = np.ones(counts.shape[1])
    weights[there] = np.median(frequencies) / frequencies
    return [float(f"{weight:.{_DIGITS}g}") for weight in weights]


def class_counts(data: DataSection, most: int | None = None) -> np.ndarray:
    """Pixels of each class in each training image.

    Args:
        data: `DataSection`.
        most: how many images to read at most, which then are spread evenly over all; None for all.

    Returns:
        int64 [N, K], in the order of `list_examples`; zeros for images that ``data.on_error: skip`` passes over.

    Raises:
        ValueError, OSError: as `list_examples`; labels that cannot be read, unless ``data.on_error`` is skip.
    """
    info, examples = info_of(data), list_examples(data, data.train_split)
    if most is not None and most < len(examples):
        examples = [examples[index] for index in np.linspace(0, len(examples) - 1, most).round().astype(int)]

    def counts(example):
        try:
            return _counts_of(example, info)
        except (ValueError, OSError):
            if data.on_error == "raise":
                raise
            return np.zeros(info.num_classes, np.int64)

    with ThreadPoolExecutor(data.workers or usable_cores()) as pool:
        return np.stack(list(track(pool.map(counts, examples), "counting the classes' pixels", len(examples))))


def with_class_weights(config: Config, file: Path, compute: bool = True) -> Config:
    """A configuration whose class weights are numbers.

    Args:
        config: Config.
        file: JSON, where the numbers are kept.
        compute: False to read them from `file`, where they were kept when the run began or by another worker.

    Returns:
        Config; the one given where `train.class_weights` names no rule.

    Raises:
        ValueError, OSError: as `class_counts`, or the file is damaged.
    """
    if config.train.class_weights != "median_frequency":
        return config
    return _with_numbers(config, _computed(config.data, file) if compute else _read(file))


def with_estimated_class_weights(config: Config, most: int = 200) -> tuple[Config, list[str]]:
    """A configuration whose class weights are numbers, of some of the images: for those who try steps out.

    Args:
        config: Config.
        most: how many images to read at most.

    Returns:
        (Config, lines of text that say what was estimated); the one given and none where `train.class_weights` names no
        rule.

    Raises:
        ValueError, OSError: as `class_counts`.
    """
    if config.train.class_weights != "median_frequency":
        return config, []
    data = config.data
    counts = class_counts(data, most)
    weights = median_frequency_weights(counts)
    names, total = info_of(data).class_names, len(list_examples(data, data.train_split))
    low, high = int(np.argmin(weights)), int(np.argmax(weights))
    which = f"estimated from {len(counts)} of the {total}" if len(counts) < total else f"from the {total}"
    line = (
        f"class weights (median_frequency): {weights[low]:.3g} ({names[low]}) to {weights[high]:.3g} ({names[high]}), "
        f"{which} training labels"
    )
    if len(counts) < total:
        line += "; the run counts all of them, once"
    return _with_numbers(config, weights), [line]


def _with_numbers(config, weights):
    train = config.train.model_copy(update={"class_weights": tuple(weights)})
    return config.model_copy(update={"train": train})


def _counts_of(example, info: DatasetInfo):
    if isinstance(example, RecordExample):
        # They hold train ids.
        train_ids = decode_label(example.encoded()[1], example.where)
    else:
        train_ids = read_label(example.label_path, info)
    return np.bincount(train_ids.ravel(), minlength=256)[: info.num_classes]


def _computed(data, file):
    counts = class_counts(data)
    weights = median_frequency_weights(counts)
    facts = {"rule": "median_frequency", "weights": weights, "pixels": counts.sum(axis=0).tolist()}
    facts["images"] = (counts > 0).sum(axis=0).tolist()
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return weights


def _read(file):
    try:
        return [float(weight) for weight in json.loads(file.read_text(encoding="utf-8"))["weights"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} cannot be read ({error!r}): it holds the class weights that the run began with; remove it, and "
            "they are computed again from the same data"
        ) from None
