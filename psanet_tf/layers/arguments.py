"""Checks of constructor arguments that layers and networks share; each returns the value as a plain Python one."""

import math
import numbers
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from psanet_tf.keras_api import keras

VARIANTS = ("semseg", "mmseg")
FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")


def checked_integer(name: str, value: object, minimum: int = 1) -> int:
    """`value` as an int; NumPy's integers are taken, True and 3.0 are not.

    Raises:
        ValueError: it is no integer, or smaller than `minimum`.
    """
    number = _as_integer(value)
    if number is None or number < minimum:
        wanted = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return number


def checked_integers(name: str, value: Any, wanted: str) -> tuple[int, ...]:
    """The elements of a sequence as ints.

    Args:
        wanted: what the message says that it must be, e.g. "two integers (rows, columns)".

    Raises:
        ValueError: it is no sequence, or an element is no integer.
    """
    try:
        integers = tuple(_as_integer(element) for element in value)
    except TypeError:
        integers = (None,)
    if None in integers:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return integers


def checked_bool(name: str, value: object) -> bool:
    """`value` as a bool.

    Raises:
        ValueError: it is neither True nor False; texts such as "no" count as true in Python and are refused.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def checked_number(name: str, value: Any, accepts: Callable[[float], bool], wanted: str) -> float:
    """`value` as a float for which `accepts` is true.

    Raises:
        ValueError: it is no finite real number, or not accepted.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not accepts(value):
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return float(value)


def checked_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """`value`, one of `choices`.

    Raises:
        ValueError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def checked_mask_size(value: Any, compact: bool, variant: str = "semseg") -> tuple[int, int] | None:
    """(rows, columns) of `PSALayer`'s mask, or None.

    Raises:
        ValueError: it is no pair of positive integers, which must be odd unless `compact` or of the mmseg variant.
    """
    if value is None:
        return None
    any_parity = compact or variant == "mmseg"
    wanted = "two integers (rows, columns)" if any_parity else "two odd integers (rows, columns)"
    lengths = checked_integers("mask_size", value, wanted)
    if len(lengths) != 2:
        raise ValueError(f"mask_size must be {wanted}, got {value!r}")
    for length in lengths:
        if length < 1 and any_parity:
            raise ValueError(f"mask_size must be positive, got {lengths}: the smallest is (1, 1)")
        if length < 1 or (length % 2 == 0 and not any_parity):
            raise ValueError(
                f"mask_size of an over-complete mask must be odd and positive, got {lengths}: "
                f"use {max(length + 1, 1)} in place of {length}; variant='mmseg' takes even ones too"
            )
    return lengths


def checked_block_size(value: Any, compact: bool) -> str | int | tuple[int, int] | None:
    """Block size of the attention: "auto", None, rows, or (rows, columns).

    Raises:
        ValueError: none of these; rows or columns for a compact layer.
    """
    if value is None or (isinstance(value, str) and value == "auto"):
        return value
    wanted = '"auto", None, a positive number of rows, or two positive integers (rows, columns)'
    rows = _as_integer(value)
    lengths = (rows,) if rows is not None else checked_integers("block_size", value, wanted)
    if (rows is None and len(lengths) != 2) or min(lengths) < 1:
        raise ValueError(f"block_size must be {wanted}, got {value!r}")
    if compact:
        raise ValueError(
            f'block_size must be "auto" or None with compact=True, which has no mask but its matrix, got {value!r}'
        )
    return rows if rows is not None else lengths


def checked_align_corners(value: object, variant: str) -> bool:
    """Whether the last resize of a network of `variant` aligns corners; None for what is usual there.

    Raises:
        ValueError: it is neither True, False nor None; False for the semseg variant.
    """
    align_corners = variant == "semseg" if value is None else checked_bool("align_corners", value)
    if variant == "semseg" and not align_corners:
        raise ValueError(
            "align_corners must be True or left out with variant='semseg', whose every resize aligns corners, "
            "got False; variant='mmseg' takes both"
        )
    return align_corners


def checked_normalization_factor(value: object) -> float | None:
    """Divisor of `PSALayer`'s sums, or None.

    Raises:
        ValueError: it is neither None nor a positive number.
    """
    if value is None:
        return None
    return checked_number("normalization_factor", value, lambda factor: factor > 0, "a positive number or None")


def checked_zoom_factor(value: Any) -> int:
    """`ResizeLike`'s factor.

    Raises:
        ValueError: it is none of 1, 2, 4, 8.
    """
    if _as_integer(value) not in (1, 2, 4, 8):
        raise ValueError(f"zoom_factor must be 1, 2, 4 or 8, got {value!r}")
    return int(value)


def checked_float_policy(name: str, value: Any) -> str:
    """The name of a dtype policy that computes in floating point; None is Keras's global policy.

    Args:
        value: name of a policy or a dtype, a policy, or None.

    Raises:
        ValueError: there is no such policy, or it does not compute in floating point.
    """
    policy = keras.mixed_precision.global_policy() if value is None else value
    if not hasattr(policy, "compute_dtype"):
        try:
            policy = keras.mixed_precision.Policy(getattr(value, "name", value))
        except (TypeError, ValueError):
            policy = None
    if policy is None or policy.compute_dtype not in FLOAT_DTYPES:
        raise ValueError(
            f"{name} must be {', '.join(map(repr, FLOAT_DTYPES))}, 'mixed_float16' or 'mixed_bfloat16', got {value!r}"
        )
    return policy.name


def _as_integer(value):
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
