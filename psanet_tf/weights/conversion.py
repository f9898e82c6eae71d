"""From any source of trained weights to a `.keras` file that says all about itself, and looking published ones over."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psanet_tf.files import atomic_file, hash_file, readable_size
from psanet_tf.models import PSANet
from psanet_tf.weights.checkpoints import Trained, load_trained
from psanet_tf.weights.fetch import fetch_weights
from psanet_tf.weights.initial_weights import load_initial_weights
from psanet_tf.weights.public_files import load_published_network
from psanet_tf.weights.public_weights import public_state_dict
from psanet_tf.weights.registry import find_published


def convert_weights(
    source: str | os.PathLike, out: str | os.PathLike, config: Any = None, overrides: Sequence[str] = ()
) -> Trained:
    """Writes a `.keras` file of a trained network, with its classes, colours, preprocessing and protocol in it.

    Args:
        source, config, overrides: as of `load_trained`.
        out: the file to write, which must not be there yet.

    Returns:
        Trained, as it was read.

    Raises:
        ValueError: as of `load_trained`, or `out` is no `.keras` file.
        FileExistsError: `out` is there.
        OSError: as of `load_trained`, or `out` cannot be written.
    """
    out = Path(out)
    if out.suffix != ".keras":
        raise ValueError(f"{out} must end in .keras")
    if out.exists():
        raise FileExistsError(f"{out} is there already: choose another name, or remove it")
    trained = load_trained(source, config, overrides)
    with atomic_file(out) as temporary:
        trained.model.save(temporary)
    return trained


@dataclasses.dataclass(frozen=True)
class CheckedWeights:
    """What was found in the file of published weights.

    Attributes:
        path: the file.
        size: in bytes.
        sha256: of the file, 64 hexadecimal digits.
        lines: what was taken from it, and what was not and why.
    """

    path: Path
    size: int
    sha256: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        facts = (f"file    {self.path} ({readable_size(self.size)})", f"sha256  {self.sha256}")
        return "\n".join((*facts, *self.lines))


def check_published(name: str) -> CheckedWeights:
    """Fetches published weights, compares their checksum, and loads them into their network.

    Args:
        name: as `psanet weights list` shows it.

    Raises:
        ValueError: no such name, or its file is not the published one or does not fit its network.
        OSError: it cannot be fetched.
    """
    entry = find_published(name)
    path = fetch_weights(name)
    digest = hash_file(path, hashlib.sha256()).hexdigest()
    if entry.is_backbone:
        arguments = {"depth": entry.depth, "stem": entry.stem, "input_shape": (33, 33, 3), "use_psa": False}
        if entry.naming == "mmseg":
            arguments |= {"variant": "mmseg"}
        lines = load_initial_weights(PSANet(2, **(arguments | entry.model)), path)
    else:
        count = len([key for key in public_state_dict(load_published_network(entry, path)) if "num_batches" not in key])
        lines = [f"loaded  {count} of {count} tensors of the network, and none was left over"]
    return CheckedWeights(path, path.stat().st_size, digest, tuple(lines))
