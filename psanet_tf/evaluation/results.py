"""The folder of one evaluation: what is finished survives an interruption, and is not done again."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from psanet_tf.config import DataSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.fingerprint import (
    Fingerprint,
    changed_images,
    describe_changed,
    describe_classes,
)
from psanet_tf.data.layouts import Example
from psanet_tf.data.readers import list_examples, read_example
from psanet_tf.files import atomic_file
from psanet_tf.reliability import Reliability

SETTINGS_FILE = "settings.json"
RECORDS_FILE = "images.jsonl"
SCORES_FILE = "scores.json"
FINGERPRINT_FILE = "fingerprint.json"
HASHES_FILE = "hashes.json"
_FORMAT = 3


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """Counts of one image, from which all scores are summed.

    Attributes:
        name: of the example.
        size: (height, width).
        confusion: int64 [K, K], rows are true classes.
        boundary: int64 [2, K], see `boundary_counts`.
        digests: of the image and of the labels that were scored, see `FileMark`.
        reliability: `Reliability` of its labelled pixels; None of a SavedModel, which gives labels only.
    """

    name: str
    size: tuple[int, int]
    confusion: np.ndarray
    boundary: np.ndarray
    digests: tuple[str, str]
    reliability: Reliability | None = None

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in the image's labels or prediction."""
        intersection = np.diagonal(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - intersection
        present = union > 0
        return float((intersection[present] / union[present]).mean()) if present.any() else 0.0

    @property
    def pixel_accuracy(self) -> float:
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    def to_json(self) -> str:
        rows, columns = np.nonzero(self.confusion)
        classes = np.flatnonzero(self.boundary[1])
        return json.dumps(
            {
                "name": self.name,
                "size": list(self.size),
                "confusion": [rows.tolist(), columns.tolist(), self.confusion[rows, columns].tolist()],
                "boundary": [classes.tolist(), *self.boundary[:, classes].tolist()],
                "digests": list(self.digests),
                "reliability": self.reliability and self.reliability.to_lists(),
            }
        )

    @classmethod
    def from_json(cls, text: str, num_classes: int) -> "ImageRecord":
        values = json.loads(text)
        confusion = np.zeros((num_classes, num_classes), np.int64)
        rows, columns, counts = values["confusion"]
        confusion[rows, columns] = counts
        boundary = np.zeros((2, num_classes), np.int64)
        classes, *counts = values["boundary"]
        boundary[:, classes] = counts
        reliability = values["reliability"] and Reliability.from_lists(values["reliability"])
        return cls(values["name"], tuple(values["size"]), confusion, boundary, tuple(values["digests"]), reliability)


class EvaluationFolder:
    """Files of one evaluation.

    ``settings.json`` (what was asked for), ``images.jsonl`` (one line of counts per finished image), ``labels/``
    and ``colors/`` (predictions as grey and as palette PNGs), what is made of them at the end, and
    ``fingerprint.json``, which says of what data the scores are.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    def start(
        self, settings: Mapping[str, Any], data: DataSection, info: DatasetInfo, fingerprint: Fingerprint
    ) -> list[str]:
        """Makes the folder, or goes on with what is in it, as far as that is still of these weights and data.

        Args:
            settings: dict for JSON: ``weights`` (``path`` as it was given, ``file`` that was read, and ``identity``,
                which tells its contents from others), ``evaluate`` (None for an exported model) and ``whole``, the
                protocol, and ``temperature`` (None for an exported model).
            data: `DataSection`.
            info: DatasetInfo.
            fingerprint: Fingerprint of the images that shall be scored.

        Returns:
            list of texts: what has to be done again and why.

        Raises:
            ValueError: the folder holds an evaluation of other weights, another split, or by another protocol.
        """
        data = data.model_dump(mode="json") | {"root": str(Path(data.root).resolve())}
        settings = {
            **settings,
            "format": _FORMAT,
            "data": data,
            "split": fingerprint.split,
            "dataset": info.to_dict(),
            "label_rule": fingerprint.label_rule,
        }
        settings = json.loads(json.dumps(settings))
        file, changes = self.path / SETTINGS_FILE, []
        if file.is_file():
            changes = self._forget_what_changed(self.settings, settings, fingerprint)
        # Written even where it is equal in all that counts: the data may lie elsewhere now.
        with atomic_file(file) as temporary:
            temporary.write_text(json.dumps(settings, indent=2), encoding="utf-8")
        return changes

    def _forget_what_changed(self, there, settings, fingerprint):
        """Drops the records that are not of these settings and this data; returns texts that say which and why."""
        if there.get("format") != _FORMAT:
            reasons = ["it was made by an earlier version, which noted less"]
        else:
            self._check_purpose(there, settings)
            reasons = _why_nothing_holds(there, settings)
        records = {} if reasons else self.records()
        if reasons:
            changes = [f"the evaluation in {self.path} is done again from the beginning: {'; '.join(reasons)}"]
        else:
            found = fingerprint.subset(name for name in fingerprint.images if name in records)
            before = found.with_digests({name: records[name].digests for name in found.images})
            for name in changed_images(before, found):
                del records[name]
            changes = [f"{text}: done again" for text in describe_changed(before, found)]
        if changes:
            # In this order: scores of what is no longer there must not be found.
            for name in (SCORES_FILE, FINGERPRINT_FILE):
                (self.path / name).unlink(missing_ok=True)
            with atomic_file(self.path / RECORDS_FILE) as temporary:
                lines = "\n".join(record.to_json() for record in records.values())
                temporary.write_text(lines, encoding="utf-8")
        return changes

    def _check_purpose(self, there, settings):
        different = [key for key in ("evaluate", "whole", "split") if there.get(key) != settings[key]]
        if _are_other_weights(there["weights"], settings["weights"]):
            different.append("weights")
        if different:
            changes = "; ".join(f"{key}: {_short(there.get(key))}, now {_short(settings[key])}" for key in different)
            raise ValueError(
                f"{self.path} holds an evaluation with other settings ({changes}); choose another folder or remove it"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """Raises FileNotFoundError where there is no evaluation."""
        file = self.path / SETTINGS_FILE
        if not file.is_file():
            raise FileNotFoundError(f"{self.path} holds no evaluation (no {SETTINGS_FILE}); run psanet evaluate first")
        return _read_json(file)

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo.from_dict(self.settings["dataset"])

    @property
    def scores(self) -> dict[str, Any]:
        """Raises FileNotFoundError where the evaluation did not come to its end."""
        file = self.path / SCORES_FILE
        if not file.is_file():
            raise FileNotFoundError(f"the evaluation in {self.path} is not finished: run psanet evaluate again")
        return _read_json(file)

    @property
    def fingerprint(self) -> Fingerprint:
        """`Fingerprint` of the images that the scores are of.

        Raises FileNotFoundError where the evaluation did not come to its end, or is an earlier version's.
        """
        if not self.fingerprint_file.is_file():
            raise FileNotFoundError(
                f"the evaluation in {self.path} does not say of which data it is: run psanet evaluate again"
            )
        return Fingerprint.load(self.fingerprint_file)

    @property
    def fingerprint_file(self) -> Path:
        return self.path / FINGERPRINT_FILE

    @property
    def hashes_file(self) -> Path:
        """The cache of `data_fingerprint`."""
        return self.path / HASHES_FILE

    def examples(self) -> dict[str, Example]:
        """{name: Example} of the split that was evaluated."""
        settings = self.settings
        data = DataSection.model_validate_json(json.dumps(settings["data"]))
        return {example.name: example for example in list_examples(data, settings["split"])}

    def read(self, example: Example) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image [H, W, C], labels [H, W] and prediction [H, W] of a finished image."""
        return *read_example(example, self.info), self.read_prediction(example.name)

    def read_prediction(self, name: str) -> np.ndarray:
        """uint8 [H, W]."""
        with Image.open(self.label_file(name)) as image:
            return np.asarray(image)

    def records(self) -> dict[str, ImageRecord]:
        """{name: ImageRecord} of all finished images. A last line cut short by an interruption is left out."""
        file = self.path / RECORDS_FILE
        if not file.is_file():
            return {}
        num_classes = self.info.num_classes
        records = {}
        for line in file.read_text(encoding="utf-8").split("\n"):
            try:
                record = ImageRecord.from_json(line, num_classes)
            except (json.JSONDecodeError, KeyError):
                continue
            if self.label_file(record.name).is_file():
                records[record.name] = record
        return records

    def add(self, record: ImageRecord) -> None:
        """Appends a record; the image's files must be there already."""
        with (self.path / RECORDS_FILE).open("a", encoding="utf-8") as stream:
            # A line of its own even after one that was cut short.
            prefix = "\n" if stream.tell() else ""
            stream.write(prefix + record.to_json())

    def label_file(self, name: str) -> Path:
        return self.path / "labels" / f"{name}.png"

    def color_file(self, name: str) -> Path:
        return self.path / "colors" / f"{name}.png"

    def submission_file(self, name: str) -> Path:
        return self.path / "submission" / f"{name}.png"


def _why_nothing_holds(there, settings):
    reasons = []
    if there["weights"]["identity"] != settings["weights"]["identity"]:
        reasons.append(f"the weights changed ({settings['weights']['file']})")
    reasons += describe_classes(there["dataset"]["class_names"], settings["dataset"]["class_names"])
    if there["temperature"] != settings["temperature"]:
        reasons.append(f"the temperature was {there['temperature']}, is {settings['temperature']}")
    if there["label_rule"] != settings["label_rule"]:
        reasons.append(f"label values were read so: {there['label_rule']}; now: {settings['label_rule']}")
    return reasons


def _are_other_weights(before, now):
    """Other weights, and not those of the same run folder or file after more training."""
    return before["identity"] != now["identity"] and before["path"] != now["path"]


def _read_json(file):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): remove the folder and run psanet evaluate again") from None


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
