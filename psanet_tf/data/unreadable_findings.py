"""Examples that cannot be read, in few words: by what is wrong with them."""

import re
from collections.abc import Sequence

from psanet_tf.data.findings import Finding, counted
from psanet_tf.data.layouts import Example

# What differs between messages of one kind: numbers, and colours with how often they occur.
_NUMBERS = re.compile(r"(?:(?:, )?#[0-9a-f]{6} \(\d+\))+(?: and \d+ more)?|\d+")


def unreadable_findings(unreadable: Sequence[tuple[Example, str]], num_examples: int) -> list[Finding]:
    """One finding for each kind of error, most frequent first.

    Args:
        unreadable: (example, message of the error) of each.
        num_examples: how many there are in all.
    """
    kinds = {}
    for example, message in unreadable:
        paths = [str(example.label_path), str(example.image_path)]
        path = next((path for path in paths if message.startswith(path)), paths[1])
        reason = message.removeprefix(path).lstrip(": ").removeprefix("is ")
        kind = reason
        for name in paths:
            kind = kind.replace(name, "#")
        kinds.setdefault(_NUMBERS.sub("#", kind), []).append((path, *reason.partition("; ")[::2]))
    findings = []
    for items in sorted(kinds.values(), key=len, reverse=True):
        what = f"{counted(len(items), 'example')} cannot be used"
        if len(items) == num_examples > 1:
            what = f"not one of {num_examples} examples can be used"
        _, reason, advice = items[0]
        advice = advice or "mend these files, or leave them out (data.on_error=skip passes over them in training)"
        if all(item[1] == reason for item in items):
            findings.append(Finding(f"{what}: {reason}", advice, tuple(path for path, *_ in items)))
        else:
            findings.append(Finding(what, advice, tuple(f"{path}: {reason}" for path, reason, _ in items)))
    return findings
