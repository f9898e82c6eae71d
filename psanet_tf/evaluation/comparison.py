"""Several evaluations of the same images side by side."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from psanet_tf.config import DataSection
from psanet_tf.data.fingerprint import changed_images, data_fingerprint, describe_classes, describe_difference
from psanet_tf.evaluation.gallery import shares
from psanet_tf.evaluation.report import cells, describe, describe_data, legend, score_cards
from psanet_tf.evaluation.results import SETTINGS_FILE, EvaluationFolder
from psanet_tf.evaluation.score_tables import score_line
from psanet_tf.files import atomic_file
from psanet_tf.visualization.colors import colorize
from psanet_tf.visualization.legend import legend_strip
from psanet_tf.visualization.pages import write_page
from psanet_tf.visualization.sheet import image_sheet

_CELL_WIDTH = 300


def compare_evaluations(
    folders: Sequence[str | os.PathLike], out: str | os.PathLike, images: int = 8, names: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Writes ``comparison.html`` and ``comparison.png``: scores, and input, truth and predictions side by side.

    Args:
        folders: two or more folders of `psanet evaluate`, or run folders that hold one named ``evaluation``.
        out: folder to write into.
        images: how many; those where the evaluations differ most.
        names: what to call the evaluations; default: the names of their folders.

    Returns:
        {name: summary}, in the order of `folders`; see `summarize`.

    Raises:
        ValueError: fewer than two folders, evaluations of other images, labels or classes, data that changed since
            they were scored, or names that do not match.
        FileNotFoundError: a folder holds no finished evaluation.
    """
    if len(folders) < 2:
        raise ValueError(f"a comparison needs at least two evaluations, got {len(folders)}")
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    evaluations = [EvaluationFolder(_evaluation_in(Path(folder))) for folder in folders]
    names = list(names or map(_name, evaluations))
    if len(names) != len(evaluations):
        raise ValueError(f"{len(evaluations)} evaluations need as many names, got {len(names)}")
    info = evaluations[0].info
    summaries = [evaluation.scores for evaluation in evaluations]
    scored = evaluations[0].fingerprint
    for evaluation in evaluations[1:]:
        _check_same_data(evaluations[0].path, scored, evaluation.path, evaluation.fingerprint)
    examples = evaluations[0].examples()
    _check_unchanged(evaluations[0], scored, examples)
    records = [evaluation.records() for evaluation in evaluations]
    chosen = _most_different(records, scored.images, images)
    rows = [_images(evaluations, examples[name]) for name in chosen]
    captions = [_caption(name, names, records) for name in chosen]
    titles = ["input", "truth", *names]
    shown = [records[0][name] for name in chosen]
    out = Path(out)
    write_page(
        out / "comparison.html",
        "comparison.html.j2",
        dataset=describe_data(evaluations[0]),
        runs=[
            {"name": name, "how": describe(evaluation.settings), "cards": score_cards(summary)}
            for name, evaluation, summary in zip(names, evaluations, summaries, strict=True)
        ],
        classes=[
            {
                "name": name,
                "color": info.colors[index].tolist(),
                "ious": [summary["classes"][index]["iou"] for summary in summaries],
            }
            for index, name in enumerate(info.class_names)
        ],
        legend=legend(info, shown),
        rows=[
            {"name": name, "caption": caption, "cells": cells(titles, row)}
            for name, caption, row in zip(chosen, captions, rows, strict=True)
        ],
    )
    footer = legend_strip(shares(shown), info.colors, info.class_names, len(titles) * (_CELL_WIDTH + 8) + 8)
    headings = ["input", "truth", *(f"{name}: {score_line(s)}" for name, s in zip(names, summaries, strict=True))]
    sheet = image_sheet(rows, headings, captions, _CELL_WIDTH, footer)
    with atomic_file(out / "comparison.png") as temporary:
        Image.fromarray(sheet).save(temporary)
    return dict(zip(names, summaries, strict=True))


def _evaluation_in(folder):
    if (folder / SETTINGS_FILE).is_file():
        return folder
    if (folder / "evaluation" / SETTINGS_FILE).is_file():
        return folder / "evaluation"
    raise FileNotFoundError(
        f"neither {folder} nor {folder / 'evaluation'} holds an evaluation; run psanet evaluate first"
    )


def _check_same_data(first, first_data, other, other_data):
    """Scores of two evaluations can stand in one table only if they are of the same images, labels and classes."""
    reasons = describe_classes(first_data.class_names, other_data.class_names)
    if reasons:
        reasons = [f"they have different classes, from the first to the second {'; '.join(reasons)}"]
    elif first_data.label_rule != other_data.label_rule:
        reasons = [f"label values were read so: {first_data.label_rule}; and so: {other_data.label_rule}"]
    names, other_names = first_data.images, other_data.images
    for where, mine, others in ((first, names, other_names), (other, other_names, names)):
        alone = [name for name in mine if name not in others]
        if alone:
            reasons.append(
                f"{len(alone)} of the {len(mine)} images in {where} are not in the other (first: {alone[0]})"
            )
    for index, what in enumerate(("images", "labels")):
        changed = changed_images(first_data, other_data, index)
        if changed:
            path = other_data.images[changed[0]][index].path
            reasons.append(f"{len(changed)} of {len(other_names)} {what} differ (first: {path})")
    if reasons:
        raise ValueError(
            f"{first} and {other} are not of the same data and cannot be compared: {'; '.join(reasons)}; evaluate both "
            "on the same images"
        )


def _check_unchanged(evaluation, scored, examples):
    """What is shown beside the scores is read from the data as they are now."""
    settings = evaluation.settings
    data = DataSection.model_validate_json(json.dumps(settings["data"]))
    here = [examples[name] for name in scored.images if name in examples]
    changes = [f"{len(scored.images) - len(here)} images are gone"] if len(here) < len(scored.images) else []
    if here:
        now = data_fingerprint(data, settings["split"], evaluation.hashes_file, here)
        changes += describe_difference(scored.subset(now.images), now)
    if changes:
        raise ValueError(
            f"the data in {data.root} changed since {evaluation.path} was scored: {'; '.join(changes)}; run psanet "
            "evaluate again"
        )


def _name(evaluation):
    path = evaluation.path.resolve()
    return path.parent.name if path.name == "evaluation" else path.name


def _most_different(records, names, count):
    """Those of the names whose scores differ most between the evaluations."""

    def spread(name):
        scores = [group[name].miou for group in records]
        return max(scores) - min(scores)

    return sorted(names, key=lambda name: (-spread(name), name))[:count]


def _images(evaluations, example):
    """Input, truth and one prediction per evaluation, uint8 [H, W, 3] each."""
    info = evaluations[0].info
    colors = info.colors
    image, label, prediction = evaluations[0].read(example)
    predictions = [prediction, *(other.read_prediction(example.name) for other in evaluations[1:])]
    return [info.images.picture(image), colorize(label, colors), *(colorize(labels, colors) for labels in predictions)]


def _caption(name, names, records):
    scores = ", ".join(f"{run} {100 * group[name].miou:.1f}" for run, group in zip(names, records, strict=True))
    return f"{name}: mIoU of the classes present: {scores}"
