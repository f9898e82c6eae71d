"""Options that are lists of numbers."""


def numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Numbers with commas between; None of None.

    Raises:
        ValueError: something else; the message names `option`.
    """
    if text is None:
        return None
    words = text.replace(",", " ").split()
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"{option}: must be numbers with commas between, e.g. 4,3,2, got {text!r}")
    return tuple(map(int, words))
