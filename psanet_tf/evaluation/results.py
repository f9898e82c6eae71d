"""The folder of one evaluation: what is finished survives an interruption, and is not done again."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.config import DataSection
from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.readers import list_examples, read_example
from psanet_tf.files import atomic_file

SETTINGS_FILE = "settings.json"
RECORDS_FILE = "pictures.jsonl"
SCORES_FILE = "scores.json"


@dataclasses.dataclass(frozen=True)
class PictureRecord:
    """Counts of one picture, from which all scores are summed.

    Attributes:
        name: of the example.
        size: (height, width).
        confusion: int64 [K, K], rows are true classes.
        boundary: int64 [2, K], see `boundary_counts`.
    """

    name: str
    size: tuple[int, int]
    confusion: np.ndarray
    boundary: np.ndarray

    @property
    def miou(self):
        """Mean IoU over the classes that occur in the picture's labels or prediction."""
        intersection = np.diagonal(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - intersection
        present = union > 0
        return float((intersection[present] / union[present]).mean()) if present.any() else 0.0

    @property
    def pixel_accuracy(self):
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    def to_json(self):
        rows, columns = np.nonzero(self.confusion)
        classes = np.flatnonzero(self.boundary[1])
        return json.dumps(
            {
                "name": self.name,
                "size": list(self.size),
                "confusion": [rows.tolist(), columns.tolist(), self.confusion[rows, columns].tolist()],
                "boundary": [classes.tolist(), *self.boundary[:, classes].tolist()],
            }
        )

    @classmethod
    def from_json(cls, text, num_classes):
        values = json.loads(text)
        confusion = np.zeros((num_classes, num_classes), np.int64)
        rows, columns, counts = values["confusion"]
        confusion[rows, columns] = counts
        boundary = np.zeros((2, num_classes), np.int64)
        classes, *counts = values["boundary"]
        boundary[:, classes] = counts
        return cls(values["name"], tuple(values["size"]), confusion, boundary)


class EvaluationFolder:
    """Files of one evaluation.

    ``settings.json`` (what was asked for), ``pictures.jsonl`` (one line of counts per finished picture), ``labels/``
    and ``colors/`` (predictions as grey and as palette PNGs), and what is made of them at the end.

    Args:
        path: the folder.
    """

    def __init__(self, path):
        self.path = Path(path)

    def start(self, settings, data, split, info):
        """Makes the folder, or goes on with one of equal settings.

        Args:
            settings: dict for JSON: everything that the predictions depend on, besides the pictures.
            data: `DataSection`.
            split: name of the split.
            info: DatasetInfo.

        Raises:
            ValueError: the folder holds an evaluation with other settings.
        """
        data = data.model_dump(mode="json") | {"root": str(Path(data.root).resolve())}
        settings = json.loads(json.dumps({**settings, "data": data, "split": split, "dataset": info.to_dict()}))
        file = self.path / SETTINGS_FILE
        if file.is_file():
            there = json.loads(file.read_text(encoding="utf-8"))
            different = sorted(key for key in {*there, *settings} if there.get(key) != settings.get(key))
            if different:
                changes = "; ".join(
                    f"{key}: {_short(there.get(key))}, now {_short(settings.get(key))}" for key in different
                )
                raise ValueError(
                    f"{self.path} holds an evaluation with other settings ({changes}); "
                    "choose another folder or remove it"
                )
            return
        with atomic_file(file) as temporary:
            temporary.write_text(json.dumps(settings, indent=2), encoding="utf-8")

    @property
    def settings(self):
        """Raises FileNotFoundError where there is no evaluation."""
        file = self.path / SETTINGS_FILE
        if not file.is_file():
            raise FileNotFoundError(f"{self.path} holds no evaluation (no {SETTINGS_FILE}); run psanet evaluate first")
        return json.loads(file.read_text(encoding="utf-8"))

    @property
    def info(self):
        return DatasetInfo.from_dict(self.settings["dataset"])

    @property
    def scores(self):
        """Raises FileNotFoundError where the evaluation did not come to its end."""
        file = self.path / SCORES_FILE
        if not file.is_file():
            raise FileNotFoundError(f"the evaluation in {self.path} is not finished: run psanet evaluate again")
        return json.loads(file.read_text(encoding="utf-8"))

    def examples(self):
        """{name: Example} of the split that was evaluated."""
        settings = self.settings
        data = DataSection.model_validate_json(json.dumps(settings["data"]))
        return {example.name: example for example in list_examples(data, settings["split"])}

    def read(self, example):
        """uint8 image [H, W, 3], labels [H, W] and prediction [H, W] of a finished picture."""
        return *read_example(example, self.info), self.read_prediction(example.name)

    def read_prediction(self, name):
        """uint8 [H, W]."""
        with Image.open(self.label_file(name)) as picture:
            return np.asarray(picture)

    def records(self):
        """{name: PictureRecord} of all finished pictures. A last line cut short by an interruption is left out."""
        file = self.path / RECORDS_FILE
        if not file.is_file():
            return {}
        num_classes = self.info.num_classes
        records = {}
        for line in file.read_text(encoding="utf-8").split("\n"):
            try:
                record = PictureRecord.from_json(line, num_classes)
            except (json.JSONDecodeError, KeyError):
                continue
            if self.label_file(record.name).is_file():
                records[record.name] = record
        return records

    def add(self, record):
        """Appends a record; the picture's files must be there already."""
        with (self.path / RECORDS_FILE).open("a", encoding="utf-8") as stream:
            # A line of its own even after one that was cut short.
            prefix = "\n" if stream.tell() else ""
            stream.write(prefix + record.to_json())

    def label_file(self, name):
        return self.path / "labels" / f"{name}.png"

    def color_file(self, name):
        return self.path / "colors" / f"{name}.png"

    def submission_file(self, name):
        return self.path / "submission" / f"{name}.png"


def _short(value):
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
