"""Which variables of a network the paper's recipe treats apart, by their paths."""

import re

HEAD_PATTERN = r"^(psa|head_[^/]*|aux_[^/]*)/"
"""Variables of the attention module and of both heads, by the names of their layers."""

NO_DECAY_PATTERN = r"(^|/)(gamma|beta|bias)$"
"""Scales and shifts of batch normalization, and biases of convolutions."""


def decays(path: str, no_decay_pattern: str | None) -> bool:
    """Whether the variable of this path is subject to weight decay."""
    return no_decay_pattern is None or re.search(no_decay_pattern, path) is None
