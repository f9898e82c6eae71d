"""Fits a network's temperature on a split of its data, and keeps it with the weights."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from psanet_tf.data.readers import read_example
from psanet_tf.evaluation.run import labelled_examples
from psanet_tf.evaluation.temperature import fit_temperature
from psanet_tf.evaluation.trained_on import check_trained_on
from psanet_tf.files import check_writable
from psanet_tf.inference.parallel import on_all_devices
from psanet_tf.inference.pixel_logits import PixelLogits
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.reliability import Reliability
from psanet_tf.runtimes.model_file import exported_model
from psanet_tf.weights.calibration import Calibration, store_calibration
from psanet_tf.weights.description import description_of


def calibrate(
    weights: str | os.PathLike,
    config_path: str | os.PathLike | None = None,
    overrides: Sequence[str] = (),
    split: str | None = None,
    whole: bool = False,
    limit: int | None = None,
    pixels: int = 20_000,
    seed: int = 0,
) -> tuple[Calibration, Path, dict[str, str]]:
    """Fits the temperature of a network and stores it with its weights, in the place of an earlier one.

    It is what the network's logits are divided by before the softmax (Guo et al., ICML 2017): of every crop, mirror
    image and scale, where the protocol averages those. It makes the labels of a sample of pixels most likely under the
    protocol's own probabilities. These are sums of softmax functions, whose logits and weights one pass over the images
    gives (`PixelLogits`), so that every candidate is exact and none needs a pass of its own. One number is known well
    enough from some ten thousand pixels; they are spread over all images, whose pixels are much alike.

    Memory: K floats for each logit that counts, of a pixel those of four neighbours where images are resized, times
    the crops over it, mirror images and scales; for 20 000 pixels of 150 classes 50 MB to 200 MB per scale, and twice
    that while they are put together.

    Args:
        weights: as of `Segmenter.load`, but no exported model.
        config_path: configuration file; default: the run folder's.
        overrides: strings ``"section.key=value"``.
        split: default: ``data.val_split``; what the network was trained on tells too little of other images.
        whole: one pass per image at its own size instead of the protocol.
        limit: look at so many images only, evenly spread over the split.
        pixels: how many, of all images together.
        seed: of the choice of the pixels, which depends on nothing else.

    Returns:
        (`Calibration`, the file that holds it now, {name: message} of the images that could not be read).

    Raises:
        ValueError, OSError: bad weights, configuration or data; an exported model; a split without labels; other
            classes than the network was trained with; no temperature that suits; not one image could be read; or the
            weights cannot be written to.
    """
    for name, value in (("limit", limit), ("pixels", pixels)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if exported_model(weights):
        raise ValueError(
            f"{weights} is exported, with the temperature that its weights had: calibrate these, and export them again"
        )
    config, info, split, examples = labelled_examples(weights, config_path, overrides, split, limit)
    segmenter = Segmenter.load(weights, config, overrides, whole)
    check_trained_on(segmenter, weights, info, config.data.root)
    check_writable(segmenter.path)
    info = dataclasses.replace(info, images=segmenter.images)
    logits, labels, failures = _sample(segmenter, examples, info, max(1, pixels // len(examples)), seed)
    calibration = _calibration(logits, labels, split)
    description = dataclasses.replace(description_of(segmenter.model), evaluate=None)
    return calibration, store_calibration(segmenter.path, calibration, description.to_dict()), failures


def _sample(segmenter, examples, info, count, seed):
    """(list of PixelLogits without any temperature, list of int [P] labels, failures), in the order of the examples."""
    places = {example.name: index for index, example in enumerate(examples)}

    def work(labeler, example):
        try:
            image, label = read_example(example, info)
        except (ValueError, OSError) as error:
            return str(error)
        labelled = np.flatnonzero(label != info.ignore_label)
        if not len(labelled):
            return None
        generator = np.random.default_rng((seed, places[example.name]))
        chosen = generator.choice(labelled, min(count, len(labelled)), replace=False)
        found = labeler.pixel_logits(image, *np.unravel_index(chosen, label.shape))
        # An earlier calibration counts for nothing.
        return dataclasses.replace(found, logits=found.logits * np.float32(segmenter.temperature)), label.flat[chosen]

    results = {
        example.name: result for example, result in on_all_devices(segmenter.labelers, examples, work, "calibrating")
    }
    failures = {name: results[name] for name in places if isinstance(results[name], str)}
    found = [results[name] for name in places if isinstance(results[name], tuple)]
    if not found:
        raise ValueError("not one image could be read:\n  " + "\n  ".join(failures.values()))
    logits, labels = zip(*found, strict=True)
    return logits, labels, failures


def _calibration(logits, labels, split):
    images, logits, labels = len(logits), PixelLogits.joined(logits), np.concatenate(labels).astype(np.int64)
    temperature = fit_temperature(logits, labels)
    probabilities = [logits.probabilities(value) for value in (1.0, temperature)]
    found = [values.argmax(axis=1) for values in probabilities]
    before, after = (
        Reliability.measured(values.max(axis=1), predicted == labels)
        for values, predicted in zip(probabilities, found, strict=True)
    )
    return Calibration(
        temperature,
        split,
        images,
        len(labels),
        tuple(-logits.log_likelihood(labels, value) for value in (1.0, temperature)),
        before,
        after,
        float((found[0] != found[1]).mean()),
    )
