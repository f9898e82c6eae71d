"""What the keys of `data:` about an image's channels must be; `psanet_tf.data.ImageFormat` has the same rules."""

import math
from collections.abc import Sequence


def check_statistics(mean: Sequence[float] | None, std: Sequence[float] | None, channels: int) -> None:
    """ValueError where mean and standard deviation are not one usable number each per channel, or both None."""
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            raise ValueError(
                f"{name}: needs one value for each of the {channels} channels (data.channels), got {len(values)}"
            )
        if values is not None and not all(map(math.isfinite, values)):
            raise ValueError(f"{name}: must be finite numbers, got {list(values)}")
    if (mean is None) != (std is None):
        missing, given = ("mean", "std") if mean is None else ("std", "mean")
        raise ValueError(f"{missing}: is missing beside {given}, the two belong together")
    if std is not None and min(std) <= 0:
        raise ValueError(f"std: must be positive, got {min(std):g} for channel {list(std).index(min(std)) + 1}")


def check_bands(bands: Sequence[int], channels: int) -> None:
    """ValueError where `bands` are not one or three of the channels, counted from 1."""
    if len(bands) not in (1, 3):
        raise ValueError(f"display.bands: must be one (grey) or three (red, green, blue), got {len(bands)}")
    wrong = [band for band in bands if not 1 <= band <= channels]
    if wrong:
        raise ValueError(
            f"display.bands: must be 1 to {channels}, the channels counted from 1 (data.channels), got {wrong[0]}"
        )


def check_range(values: Sequence[float] | None) -> None:
    """ValueError where `values` are not two finite numbers, the smaller one first."""
    if values is not None and not (len(values) == 2 and all(map(math.isfinite, values)) and values[0] < values[1]):
        raise ValueError(f"display.range: needs two numbers, black < white, got {list(values)}")
