"""The rows of metrics.csv and metrics.jsonl, one per epoch."""

import csv
import json
from collections.abc import Mapping
from typing import Any

from psanet_tf.files import atomic_file
from psanet_tf.training.run_folder import TrainingFolder

_NAMES = {"logits_loss": "main_loss", "aux_logits_loss": "aux_loss", "logits_miou": "miou"}
COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "loss",
    "main_loss",
    "aux_loss",
    "miou",
    "val_loss",
    "val_main_loss",
    "val_aux_loss",
    "val_miou",
    "seconds",
    "images_per_second",
)


def plain_names(logs: Mapping[str, Any]) -> dict[str, float]:
    """{column: float} from what Keras calls its metrics."""
    plain = {}
    for key, value in logs.items():
        prefix = "val_" if key.startswith("val_") else ""
        name = key.removeprefix(prefix)
        plain[prefix + _NAMES.get(name, name)] = float(value)
    return plain


class Records:
    """The table of a run; both files always hold all rows.

    Args:
        run: TrainingFolder; rows of an interrupted run are read from it.
        epochs: rows of later epochs are dropped: they will come again.
    """

    def __init__(self, run: TrainingFolder, epochs: int) -> None:
        self.run = run
        self.rows = []
        if run.json_lines_file.is_file():
            rows = [json.loads(line) for line in run.json_lines_file.read_text(encoding="utf-8").splitlines()]
            self.rows = [row for row in rows if row["epoch"] <= epochs]

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with atomic_file(self.run.csv_file) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        with atomic_file(self.run.json_lines_file) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
