"""What is found wrong, or worth a look, in a dataset: in words that say what to do about it."""

import dataclasses

SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of thing that was found.

    Attributes:
        what: the thing, in a sentence that does without `where`.
        advice: what to do or to set; may be empty.
        where: files at which it was found, each with what is special about it.
        is_problem: False for what may well be intended.
    """

    what: str
    advice: str = ""
    where: tuple[str, ...] = ()
    is_problem: bool = True

    def lines(self) -> list[str]:
        """The finding as indented lines of text, with at most `SHOWN` files."""
        lines = [f"  {'problem' if self.is_problem else 'note'}: {self.what}"]
        lines += [f"      {item}" for item in self.where[:SHOWN]]
        if len(self.where) > SHOWN:
            lines.append(f"      and {len(self.where) - SHOWN} more")
        return lines + ([f"    -> {self.advice}"] if self.advice else [])


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """ "1 image", "3 images"."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
