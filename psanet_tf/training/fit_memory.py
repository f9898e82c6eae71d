"""Settings with which a training fits into a given memory."""

import dataclasses
from typing import Literal

from pydantic import ByteSize, TypeAdapter, ValidationError

from psanet_tf.config import TrainSection
from psanet_tf.files import readable_size
from psanet_tf.models import PSANet
from psanet_tf.training.memory import bytes_of, estimate_memory

# For TensorFlow itself, kernels' workspaces and batches that are on their way: 0.4 GB on a CPU.
RESERVE = 600 * 10**6


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Settings of the `train:` section, and what they need.

    Attributes:
        rematerialize, batch_size, accumulation_steps: see `TrainSection`; the images per update stay what they were.
        needed: bytes per replica, `RESERVE` included.
    """

    rematerialize: Literal["none", "blocks"]
    batch_size: int
    accumulation_steps: int
    needed: int


def parse_memory(text: str) -> int:
    """Bytes of a size such as "8GB", "8GiB" or "7500 MB".

    Raises:
        ValueError: it is none.
    """
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size <= 0:
        raise ValueError(f"--fit-memory must be a size such as 8GB or 7500MB, got {text!r}")
    return size


def fit_memory(model: PSANet, section: TrainSection, replicas: int, limit: int) -> Proposal:
    """The settings nearest to those given that fit.

    First those given, then rematerialization, which changes nothing but the time of a step; then, with and without it,
    fewer images per step and as many more steps per update, which changes what batch normalization sees.

    Args:
        model: compiled network, its optimizer built.
        section: the settings given.
        replicas: devices that share a batch.
        limit: bytes that one device has.

    Returns:
        Proposal.

    Raises:
        ValueError: one image per replica with rematerialization needs more; the message says how much.
    """
    images = section.batch_size // replicas
    kinds = dict.fromkeys([section.rematerialize, *([] if model.has_backbone else ["blocks"])])
    smallest = None
    for parts in (parts for parts in range(1, images + 1) if images % parts == 0):
        for kind in kinds:
            needed = RESERVE + estimate_memory(model, images // parts, rematerialize=kind == "blocks").total
            if parts > 1 == section.accumulation_steps:
                needed += bytes_of(model.trainable_variables)  # the sum of gradients between updates
            if needed <= limit:
                return Proposal(kind, section.batch_size // parts, section.accumulation_steps * parts, needed)
            smallest = min(needed, smallest or needed)
    raise ValueError(
        f"nothing fits into {readable_size(limit)}: one image at a time"
        f"{'' if model.has_backbone else ' with rematerialization'} needs about "
        f"{readable_size(smallest)}. A smaller data.crop_size, train.precision=mixed_bfloat16 or a smaller model.depth "
        "needs less"
    )


def describe_proposal(proposal: Proposal, section: TrainSection, replicas: int, limit: int) -> list[str]:
    """Lines that say what to set, and what that changes."""
    needed, given = readable_size(proposal.needed), readable_size(limit)
    changes = {
        f"train.{name}": getattr(proposal, name)
        for name in ("rematerialize", "batch_size", "accumulation_steps")
        if getattr(proposal, name) != getattr(section, name)
    }
    if not changes:
        return [f"fits into {given} as it is: about {needed} per replica"]
    lines = [f"to fit into {given} (about {needed} per replica):"]
    lines.append("  " + " ".join(f"--set {key}={value}" for key, value in changes.items()))
    if "train.rematerialize" in changes:
        lines.append("  a step takes about a quarter longer; the results are the same")
    if "train.batch_size" in changes:
        before, after = section.batch_size // replicas, proposal.batch_size // replicas
        lines.append(
            f"  an update still sees {section.batch_size * section.accumulation_steps} images, but batch normalization "
            f"{after} at a time on each replica instead of {before}: not the same results"
        )
    return lines
