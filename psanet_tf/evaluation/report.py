"""One HTML page about an evaluation."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.evaluation.gallery import COLUMNS, caption, image_row, shares, worst_first
from psanet_tf.evaluation.results import EvaluationFolder, ImageRecord
from psanet_tf.evaluation.score_tables import summed_reliability
from psanet_tf.inference.attention import attention_maps
from psanet_tf.inference.attention_page import attention_view
from psanet_tf.models import PSANet
from psanet_tf.visualization.confusion import confusion_image
from psanet_tf.visualization.heatmap import heat_colors
from psanet_tf.visualization.pages import data_uri, fitted, write_page
from psanet_tf.visualization.reliability import reliability_image
from psanet_tf.weights.description import description_of

_IMAGES = 6  # of the worst, and of the best
_ATTENTION_IMAGES = 3
_CELL_WIDTH = 360


def write_report(
    folder: EvaluationFolder, summary: Mapping[str, Any], records: Sequence[ImageRecord], model: PSANet | None
) -> None:
    """Writes ``report.html`` into an `EvaluationFolder`: scores, classes, confusion, calibration, images, attention.

    Args:
        folder: `EvaluationFolder`.
        summary: see `summarize`.
        records: list of `ImageRecord`.
        model: `PSANet`, whose attention is shown if it has any; None for an exported one.
    """
    info, settings, examples = folder.info, folder.settings, folder.examples()
    ranking = worst_first(records)
    best = ranking[::-1][:_IMAGES]
    galleries = [("Worst images", ranking[:_IMAGES])]
    if len(ranking) > _IMAGES:
        galleries.append(("Best images", best))
    pixels = max(1, sum(row["pixels"] for row in summary["classes"]))
    write_page(
        folder.path / "report.html",
        "report.html.j2",
        title=f"Evaluation on {describe_data(folder)}",
        subtitle=describe(settings),
        cards=score_cards(summary),
        failures=list(summary["failed"].values()),
        classes=[
            {**row, "color": info.colors[index].tolist(), "share": row["pixels"] / pixels}
            for index, row in enumerate(summary["classes"])
        ],
        confusion=data_uri(confusion_image(sum(record.confusion for record in records), info.class_names)),
        calibration=_calibration(records, model),
        galleries=[
            {
                "title": f"{title} (by mIoU of the classes in them)",
                "legend": legend(info, group),
                "rows": [_row(folder, record, examples) for record in group],
            }
            for title, group in galleries
        ],
        attention=_attention(folder, ranking, examples, model),
        heat_colors=heat_colors().tolist(),
    )


def describe_data(folder: EvaluationFolder) -> str:
    """Which data: the dataset's name, that of its folder where it has no other, and the split."""
    name, settings = folder.info.name, folder.settings
    return f"{Path(settings['data']['root']).name if name == 'custom' else name}, split {settings['split']}"


def describe(settings: Mapping[str, Any]) -> str:
    """One line: which weights, and how images were labelled."""
    protocol = settings["evaluate"]
    if protocol is None:
        how = "by the protocol that it was exported with"
    elif settings["whole"]:
        how = "one pass per image"
    else:
        scales = ", ".join(f"{scale:g}" for scale in protocol["scales"])
        if protocol["protocol"] == "mmseg":
            long_side, short_side = protocol["scale"]
            how = f"MMSegmentation's protocol, mode {protocol['mode']}, at scale {scales} of {long_side} x {short_side}"
        else:
            how = f"sliding window at scale {scales} of long side {protocol['base_size']}"
        how += ", with mirror images" if protocol["flip"] else ""
    return f"{settings['weights']['file']}: {how}"


def score_cards(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    values = [("mIoU", "miou"), ("mAcc", "macc"), ("allAcc", "allacc"), ("boundary mIoU", "boundary_miou")]
    if summary.get("expected_calibration_error") is not None:
        values.append(("calibration error", "expected_calibration_error"))
    cards = [{"name": name, "value": f"{100 * summary[key]:.2f}"} for name, key in values]
    return [*cards, {"name": "images", "value": summary["images"]}]


def legend(info: DatasetInfo, records: Iterable[ImageRecord]) -> list[dict[str, Any]]:
    """Names and colours of the classes that occur in the labels of some records, for a template."""
    return [{"name": info.class_names[index], "color": info.colors[index].tolist()} for index, _ in shares(records)]


def cells(titles: Iterable[str], images: Iterable[np.ndarray], width: int = _CELL_WIDTH) -> list[dict[str, Any]]:
    """Images of a row for a template; the first is a photograph, the others are flat colours."""
    result = []
    for index, (title, image) in enumerate(zip(titles, images, strict=True)):
        flat = index > 0
        uri = data_uri(fitted(image, width, flat), quality=None if flat else 88)
        result.append({"title": title, "uri": uri, "pixels": flat})
    return result


def _row(folder, record, examples):
    images = image_row(folder, examples[record.name])
    return {"name": record.name, "caption": caption(record), "cells": cells(COLUMNS, images)}


def _calibration(records, model):
    """Reliability diagrams, and what a calibration of the weights changed; None where the confidence is not known."""
    reliability = summed_reliability(records)
    if reliability is None:
        return None
    description = None if model is None else description_of(model)
    fitted_to = description and description.calibration
    diagrams = [(reliability, "this evaluation, all labelled pixels")]
    if fitted_to:
        diagrams.append((fitted_to.before, "calibration: before, temperature 1"))
        diagrams.append((fitted_to.after, f"calibration: after, temperature {fitted_to.temperature:.3f}"))
    return {
        "fitted_to": fitted_to,
        "diagrams": [{"title": title, "uri": data_uri(reliability_image(found, title))} for found, title in diagrams],
    }


def _attention(folder, ranking, examples, model):
    if model is None or not model.get_config()["use_psa"]:
        return []
    images = folder.info.images
    count = min(_ATTENTION_IMAGES, len(ranking))
    chosen = [ranking[index * (len(ranking) - 1) // max(1, count - 1)] for index in range(count)]
    return [
        attention_view(
            functools.partial(attention_maps, model, images=images),
            folder.read(examples[record.name])[0],
            record.name,
            images,
        )
        for record in chosen
    ]
