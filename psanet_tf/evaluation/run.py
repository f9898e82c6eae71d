"""A whole evaluation: from weights and a configuration to tables, images and a report."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from psanet_tf.config import Config, load_config
from psanet_tf.data.catalog import DatasetInfo, info_of
from psanet_tf.data.fingerprint import data_fingerprint
from psanet_tf.data.layouts import Example
from psanet_tf.data.readers import list_examples
from psanet_tf.data.scale import median_long_side, scale_warning
from psanet_tf.evaluation.evaluator import evaluate
from psanet_tf.evaluation.gallery import evaluation_sheet, worst_first
from psanet_tf.evaluation.labelled import check_labelled
from psanet_tf.evaluation.report import write_report
from psanet_tf.evaluation.results import EvaluationFolder
from psanet_tf.evaluation.score_tables import summarize, summed_reliability, write_tables
from psanet_tf.evaluation.shards import merge_shards, shard_folder, write_failures
from psanet_tf.evaluation.trained_on import check_trained_on
from psanet_tf.files import atomic_file
from psanet_tf.inference.segmenter import Segmenter
from psanet_tf.inference.shards import Shard
from psanet_tf.runtimes.model_file import exported_model
from psanet_tf.visualization.confusion import confusion_image
from psanet_tf.visualization.reliability import reliability_image
from psanet_tf.weights.checkpoints import checkpoint_file
from psanet_tf.weights.fetch import is_remote
from psanet_tf.weights.files import weights_identity
from psanet_tf.weights.run_folder import config_beside


def run_evaluation(
    weights: str | os.PathLike,
    out: str | os.PathLike | None,
    config_path: str | os.PathLike | None = None,
    overrides: Sequence[str] = (),
    split: str | None = None,
    whole: bool = False,
    limit: int | None = None,
    worst: int = 10,
    submission: bool = False,
    shard: Shard | None = None,
    merge: bool = False,
) -> tuple[EvaluationFolder, dict[str, Any]]:
    """Scores a network on a split and writes everything there is to say about it.

    Images that `out` has results of, from an earlier call with the same settings, are not done again, unless the
    weights, the image or its labels changed since; lines on standard error say so.

    Args:
        weights: as of `Segmenter.load`.
        out: folder of the results; default: ``evaluation`` in the run folder, or here for weights that are fetched.
        config_path: configuration file; default: the run folder's.
        overrides: strings ``"section.key=value"``.
        split: default: ``data.val_split``.
        whole: one pass per image at its own size instead of the sliding window.
        limit: score so many images only, evenly spread over the split.
        worst: how many images the sheet of the worst shows.
        submission: also write predictions as the dataset's test server takes them.
        shard: score its images only, into a folder below `out`, and write no report: for one of several machines.
        merge: put together what all shards have scored.

    Returns:
        (EvaluationFolder, summary); see `summarize`. For a shard the summary is ``{"images": how many are scored,
        "failed": {name: message}}``.

    Raises:
        ValueError, OSError: bad weights, configuration or data; a split without labels; other classes than the network
            was trained with; other settings than `out` has results of; or not one image could be read.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 image, got {limit}")
    if shard and merge:
        raise ValueError("a shard is scored or shards are merged, not both in one call")
    if worst < 0:
        raise ValueError(f"worst must not be negative, got {worst}")
    exported = exported_model(weights)
    config, info, split, examples = labelled_examples(weights, config_path, overrides, split, limit)
    out = out or default_folder(weights)
    folder = EvaluationFolder(out)
    if merge:
        merge_shards(folder, [example.name for example in examples])
    if shard:
        folder = shard_folder(out, shard)
        examples = shard.take(examples, key=lambda example: example.name)
        if not examples:
            return folder, {"images": 0, "failed": {}}
    # An export takes no settings of its network; those of the data are the evaluation's own.
    own = [text for text in overrides if not text.startswith("data.")] if exported else overrides
    segmenter = Segmenter.load(weights, None if exported else config, own, whole)
    check_trained_on(segmenter, weights, info, config.data.root)
    images = segmenter.images.shown_as(info.images)
    info = dataclasses.replace(info, long_side=segmenter.info.long_side, images=images)
    protocol = segmenter.evaluate
    seen = median_long_side(examples)
    what = f"those of split {split!r}"
    warning = scale_warning(info.long_side, segmenter.base_size, seen, what, segmenter.protocol)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    settings = {
        "weights": {
            "path": str(weights) if is_remote(weights) else str(Path(weights).resolve()),
            "file": str(segmenter.path.resolve()),
            "identity": weights_identity(segmenter.path),
        },
        # An export has its protocol in its graph; how many crops are labelled at a time changes nothing.
        "evaluate": None if exported else (protocol or config.evaluate).model_dump(mode="json", exclude={"batch_size"}),
        "whole": whole,
        "temperature": segmenter.temperature,
    }
    fingerprint = data_fingerprint(config.data, split, folder.hashes_file, examples)
    changes = folder.start(settings, config.data, info, fingerprint)
    if merge and changes:
        raise ValueError(f"what the shards have scored does not hold any more: {'; '.join(changes)}")
    for line in changes:
        print(line, file=sys.stderr)
    records, failures = evaluate(segmenter.labelers, examples, info, folder, fingerprint, submission)
    if shard:
        write_failures(folder, failures)
        return folder, {"images": len(records), "failed": failures}
    if not records:
        raise ValueError("not one image could be read:\n  " + "\n  ".join(failures.values()))
    fingerprint.subset(records).save(folder.fingerprint_file)
    records = list(records.values())
    summary = summarize(records, info, failures)
    _write_images(folder, records, worst)
    write_report(folder, summary, records, segmenter.model)
    write_tables(folder, summary, records)
    return folder, summary


def labelled_examples(
    weights: str | os.PathLike,
    config_path: str | os.PathLike | None,
    overrides: Sequence[str],
    split: str | None,
    limit: int | None,
) -> tuple[Config, DatasetInfo, str, Sequence[Example]]:
    """(configuration, dataset, name of the split, examples) that weights are measured on.

    Arguments and errors as of `run_evaluation`.
    """
    if not is_remote(weights) and not exported_model(weights):
        checkpoint_file(weights)
    config_path = config_path or config_beside(weights)
    if config_path is None:
        raise ValueError(f"{weights} lies in no run folder: give the configuration, which names the data")
    config = load_config(config_path, overrides)
    info = info_of(config.data)
    split = split or config.data.val_split
    examples = spread(list_examples(config.data, split), limit)
    check_labelled(examples, info, split)
    return config, info, split, examples


def spread(examples: Sequence[Example], limit: int | None) -> Sequence[Example]:
    """At most `limit` of the examples, evenly spread."""
    if limit is None or limit >= len(examples):
        return examples
    return [examples[index * len(examples) // limit] for index in range(limit)]


def default_folder(weights: str | os.PathLike) -> Path:
    """Where results go if nothing else is said: beside the weights, or here for those that were fetched."""
    if is_remote(weights):
        return Path("evaluation")
    path = Path(weights)
    return (path if path.is_dir() else path.parent) / "evaluation"


def _write_images(folder, records, worst):
    confusion = confusion_image(sum(record.confusion for record in records), folder.info.class_names)
    images = {"confusion.png": confusion}
    if (reliability := summed_reliability(records)) is not None:
        images["reliability.png"] = reliability_image(reliability, f"{len(records)} images")
    if worst:
        images["worst.png"] = evaluation_sheet(folder, worst_first(records)[:worst])
    for name, image in images.items():
        with atomic_file(folder.path / name) as temporary:
            Image.fromarray(image).save(temporary)
