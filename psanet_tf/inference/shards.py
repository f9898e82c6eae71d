"""A part of the work for one of several machines that know nothing of each other."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True)
class Shard:
    """The items whose name's hash falls to one of `count` machines: each falls to exactly one, whatever the others are.

    Attributes:
        index: 1 to `count`.
        count: of machines.

    Raises:
        ValueError: an index outside of that.

    Example:
        >>> Shard.parse("2/8").take(files, key=lambda file: file.name)
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"a shard must be I/N with I from 1 to N, got {self}")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard in a text such as "2/8".

        Raises:
            ValueError: not of that form.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if match is None:
            raise ValueError(f"a shard must be I/N, such as 1/8 for the first of eight machines, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def take(self, items: Iterable[_Item], key: Callable[[_Item], str]) -> list[_Item]:
        """The items of this shard, in their order; `key` gives an item's name."""
        return [item for item in items if self.holds(key(item))]

    def holds(self, name: str) -> bool:
        """Whether the item of that name is of this shard."""
        digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
