"""Whether a split has labels to score against: test splits have none, or files in which no pixel has a class."""

from collections.abc import Sequence

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.layouts import Example
from psanet_tf.data.readers import read_example


def check_labelled(examples: Sequence[Example], info: DatasetInfo, split: str) -> None:
    """Reads label files until one has a labelled pixel, which is the first one in almost all data.

    Args:
        examples: list of `Example`.
        info: DatasetInfo.
        split: name of the split, for the message.

    Raises:
        ValueError: not one pixel of all that can be read has a class.
    """
    read = 0
    for example in examples:
        try:
            label = read_example(example, info)[1]
        except (ValueError, OSError):
            continue
        if (label != info.ignore_label).any():
            return
        read += 1
    if read:
        raise ValueError(
            f"split {split!r} has no labels to score against: not one pixel in its {read} label files has a class "
            f"(first: {examples[0].label_path}); psanet predict labels images without scoring them"
        )
