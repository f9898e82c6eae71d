"""From a folder or an export to a dataset that can be trained on."""

import collections
import dataclasses
import os
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from psanet_tf.cores import usable_cores
from psanet_tf.data.findings import counted
from psanet_tf.data.importing.configuration import configuration_text
from psanet_tf.data.importing.detection import find_source
from psanet_tf.data.importing.proposals import proposed_options
from psanet_tf.data.importing.rules import KeyCounts, LabelChoices, class_rule, describe_keys
from psanet_tf.data.importing.source import Source
from psanet_tf.data.importing.splits import with_splits
from psanet_tf.data.importing.where import Where
from psanet_tf.data.importing.writing import CONFIGURATION, read_labels, write_dataset
from psanet_tf.progress import track


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """All that an import takes from the user.

    Attributes:
        choices: which keys are which classes.
        val_share: see `with_splits`.
        seed: of the draw of validation images.
    """

    choices: LabelChoices = dataclasses.field(default_factory=LabelChoices)
    val_share: float | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A source, and what occurs in its labels."""

    source: Source
    counts: KeyCounts

    def text(self) -> str:
        """What was found, in words."""
        source = self.source
        lines = [f"found: {source.kind}"]
        own = {split: sum(image.split == split for image in source.images) for split in ("train", "val", "test", None)}
        if own[None] < len(source.images):
            lines.append(
                "splits of the source: "
                + ", ".join(f"{split or 'none'} {count}" for split, count in own.items() if count)
            )
        lines += [f"note: {note}" for note in source.notes]
        named = {key: source.names.get(key, key if key in source.keys.names else "?") for key in _found(self)}
        named |= dict.fromkeys(source.ignored)
        lines += describe_keys(source, self.counts, named)
        proposal = proposed_options(source, self.counts)
        return "\n".join(lines + ([f"proposal, with names of your own: {proposal}"] if proposal else []))


def inspect_source(path: str | os.PathLike, where: Where | None = None) -> Inspection:
    """Looks what a folder or an export holds, and reads all labels once.

    Args:
        path: a folder, or an annotation file.
        where: see `Where`.

    Raises:
        FileNotFoundError, ValueError: nothing that can be imported; the message says what is in the way.
        ImportError: a form that needs a package which is not installed.
    """
    source = find_source(Path(path), where or Where())
    counts, unsure, enlarged = KeyCounts(), [], collections.Counter()
    with ThreadPoolExecutor(usable_cores()) as pool:
        facts = track(pool.map(_facts_of, source.images), "reading labels", len(source.images))
        for image, (codes, pixels, times, is_turned_unseen) in zip(source.images, facts, strict=True):
            counts.add(image.labels.where, codes, pixels)
            enlarged[times] += 1
            if is_turned_unseen:
                unsure.append(image.path)
    notes = [*source.notes]
    if unsure:
        notes.append(
            f"{counted(len(unsure), 'image')} to be turned (orientation tag), whose sizes do not tell whether labels "
            f"were drawn on them as they are seen, which is taken for granted (first: {unsure[0]}): look at the page "
            "of psanet data check"
        )
    if any(image.enlarges for image in source.images):
        notes += _notes_on_sizes(enlarged)
    return Inspection(dataclasses.replace(source, notes=tuple(notes)), counts)


def import_dataset(inspection: Inspection, out: str | os.PathLike, options: ImportOptions) -> Sequence[str]:
    """Writes a dataset of what was inspected.

    Args:
        inspection: from `inspect_source`.
        out: folder to make; images are hard links of the source's files where that is possible.
        options: what the user says.

    Returns:
        What was written, in lines of text.

    Raises:
        FileExistsError: there is something at `out`; nothing is written.
        ValueError: a key without a class, a split that cannot be made, and what `class_rule` and `with_splits` raise.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists already; remove it or choose another place")
    source = inspection.source
    rule = class_rule(source, inspection.counts, options.choices)
    splits = with_splits(source.images, options.val_share, options.seed)
    train = splits["train"]
    configuration = configuration_text(out, train, len(rule.class_names), rule.colors is not None)
    write_dataset(out, splits, rule, configuration)
    drawn = "" if options.val_share is None else f" (drawn, seed {options.seed})"
    absent = [name for name in rule.class_names if name not in rule.class_of.values()]
    notes = []
    if absent:
        verb, them = ("occurs", "it") if len(absent) == 1 else ("occur", "them")
        how = ""
        if options.choices.classes is None:
            how = f"; {' '.join(f'--ignore {shlex.quote(name)}' for name in absent)} leaves {them} out"
        notes = [f"note: {', '.join(absent)} never {verb}, and would count as 0 in mean scores{how}"]
    return [
        "classes, by what became them:",
        *describe_keys(source, inspection.counts, rule.class_of),
        ", ".join(f"{counted(len(images), f'{split} image')}" for split, images in splits.items()) + drawn,
        f"{len(rule.class_names)} classes: {', '.join(rule.class_names)}",
        *notes,
        f"next: psanet data check --config {out / CONFIGURATION}",
    ]


def _found(inspection):
    return [inspection.source.keys.key(code) for code in inspection.counts.pixels]


def _notes_on_sizes(enlarged):
    """Of masks by how many times they are enlarged."""
    larger = [
        f"the masks of {counted(count, 'image')} are enlarged {times} times (--resize-masks): their edges stay coarse"
        for times, count in sorted(enlarged.items())
        if times > 1
    ]
    return larger or ["--resize-masks: all masks have the sizes of their images"]


def _facts_of(image):
    """(codes that occur, pixels of each, how many times enlarged, whether turned unseen)"""
    labels = read_labels(image)
    if labels.codes.max(initial=0) < 1 << 16:
        counts = np.bincount(labels.codes.ravel())
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(labels.codes, return_counts=True)
    return found, counts, labels.enlarged, labels.is_turned_unseen
