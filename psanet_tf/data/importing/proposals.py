"""Options that would make an import complete: a proposal to be looked at, never taken by itself."""

import shlex

from psanet_tf.data.importing.rules import MANY, KeyCounts
from psanet_tf.data.importing.source import UNLABELLED, Source

_NO_CLASS = "255"  # in most label files of values


def proposed_options(source: Source, counts: KeyCounts) -> str | None:
    """Options of `psanet data import` for what the source leaves open.

    Args:
        source: what was found.
        counts: of the keys in its labels.

    Returns:
        Text as it is typed into a shell; None where nothing is open, or so much that masks must be made anew.
    """
    found = [source.keys.key(code) for code in sorted(counts.pixels)]
    named = {*source.names, *source.keys.names, *source.ignored}
    open_keys = [key for key in found if key not in named and key != UNLABELLED]
    if len(open_keys) > MANY and (source.keys.kind == "colour" or not _is_dense(open_keys)):
        return None
    options = []
    if source.keys.kind == "value" and len(open_keys) == len(found):
        options += _of_values(open_keys)
    else:
        options += [f"--map={key}=class{index}" for index, key in enumerate(open_keys)]
    if UNLABELLED in found:
        options.append(f"--map={UNLABELLED}=background")
    if not any(image.split == "val" for image in source.images):
        options.append("--val=0.1")
    return shlex.join(options) or None


def _is_dense(keys):
    """Whether values have few gaps, as classes do and smoothed values do not."""
    values = [int(key) for key in keys if key != _NO_CLASS]
    return values[-1] - values[0] < 1.5 * len(values)


def _of_values(keys):
    if len(keys) == 2 and keys[0] == "0":
        return ["--classes=background,foreground"]
    ignored = [key for key in keys if key == _NO_CLASS]
    names = ",".join(f"class{key}" for key in keys if key not in ignored)
    return [f"--classes={names}", *(f"--ignore={key}" for key in ignored)]
