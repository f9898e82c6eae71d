"""The temperature of a trained network, and how it is kept with the weights.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: a network's logits are divided by one number before
the softmax, so that its probabilities are as often right as they say. In whatever protocol, that is before the first
softmax: of every crop, mirror image and scale, where those are averaged.
"""

import copy
import dataclasses
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from psanet_tf.files import atomic_file
from psanet_tf.reliability import Reliability
from psanet_tf.weights.files import CONFIG_MEMBER, weights_identity

_Logits = TypeVar("_Logits")


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """A temperature, and what it was fitted to.

    Attributes:
        temperature: what logits are divided by, above 0.
        split: of the dataset.
        images, pixels: how many were looked at.
        nll: negative log likelihood of the labels per pixel, in nats, at temperature 1 and at this one.
        before, after: `Reliability` of these pixels, at temperature 1 and at this one.
        changed: share of these pixels whose label is another one at this temperature: 0 but where probabilities are
            averaged.
    """

    temperature: float
    split: str
    images: int
    pixels: int
    nll: tuple[float, float]
    before: Reliability
    after: Reliability
    changed: float = 0.0

    def __post_init__(self):
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature must be a number above 0, got {self.temperature}")

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes back; plain values, for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {"nll": list(self.nll), "before": self.before.to_lists(), "after": self.after.to_lists()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """The calibration in `values`.

        Raises:
            ValueError: not what `to_dict` writes.
        """
        try:
            read = {name: Reliability.from_lists(values[name]) for name in ("before", "after")}
            return cls(**{**values, **read, "nll": tuple(values["nll"])})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not the calibration of a network: {error}") from None


def tempered(logits: _Logits, temperature: float) -> _Logits:
    """``logits / temperature``; at temperature 1 `logits` themselves, so that without one nothing changes."""
    return logits if temperature == 1 else logits / temperature


def calibration_file(path: Path) -> Path:
    """The file beside weights that cannot carry their calibration: all but `.keras` files."""
    return path.with_name(f"{path.name}.calibration.json")


def store_calibration(path: Path, calibration: Calibration, description: dict[str, Any]) -> Path:
    """Keeps a calibration with a file of weights, in the place of an earlier one.

    A `.keras` file takes it into its description, and stays as it is otherwise, to the bit; other files, which are
    somebody else's, get a file beside them.

    Args:
        path: the file of weights.
        calibration: `Calibration`.
        description: `Description.to_dict` of the network, for a `.keras` file that has none of its own.

    Returns:
        The file that was written.

    Raises:
        ValueError: a `.keras` file that is damaged.
        OSError: it cannot be written.
    """
    if path.suffix == ".keras":
        _store_inside(path, calibration, description)
        return path
    target = calibration_file(path)
    values = {"weights": weights_identity(path), "calibration": calibration.to_dict()}
    with atomic_file(target) as temporary:
        temporary.write_text(json.dumps(values, indent=2), encoding="utf-8")
    return target


def stored_calibration(path: Path) -> Calibration | None:
    """The calibration beside a file of weights that cannot carry it; None where there is none.

    One that was fitted to other weights counts for nothing: a line on standard error says so.

    Raises:
        ValueError: the file beside is damaged.
    """
    file = calibration_file(path)
    if path.suffix == ".keras" or not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        identity, calibration = values["weights"], Calibration.from_dict(values["calibration"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}): remove it, or run psanet calibrate again") from None
    if identity != weights_identity(path):
        print(
            f"warning: {file} was fitted to other weights than {path} holds now, so that its temperature does not "
            "count: run psanet calibrate again, or remove it",
            file=sys.stderr,
        )
        return None
    return calibration


def _store_inside(path, calibration, description):
    with zipfile.ZipFile(path) as source, atomic_file(path, needed_bytes=os.path.getsize(path)) as temporary:
        with zipfile.ZipFile(temporary, "w") as target:
            for entry in source.infolist():
                copied = copy.copy(entry)
                if entry.filename == CONFIG_MEMBER:
                    model = json.loads(source.read(entry))
                    # Keras has plain dicts of a configuration as they are.
                    own = model["config"].get("description") or description
                    model["config"]["description"] = {**own, "calibration": calibration.to_dict()}
                    target.writestr(copied, json.dumps(model))
                    continue
                with source.open(entry) as member, target.open(copied, "w", force_zip64=True) as stream:
                    shutil.copyfileobj(member, stream, 1 << 20)
