"""What the images of a dataset, or of a trained network, are: channels, numbers, normalization, and what shows of them.

The one place that says which mean and standard deviation a network's images get: `DatasetInfo` carries an
`ImageFormat` from a configuration to runs, `.keras` files, evaluations and exported models.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from psanet_tf.config.image_checks import check_bands, check_range, check_statistics
from psanet_tf.data.findings import counted
from psanet_tf.data.normalization import MEAN, STD, normalize

if TYPE_CHECKING:
    import tensorflow as tf

    from psanet_tf.config import DataSection

_Image = TypeVar("_Image", np.ndarray, "tf.Tensor")

DTYPES = ("uint8", "uint16", "float32")
PERCENTILES = (2, 98)
"""What a picture shows as black and as white of values that are no grey levels, per band, unless a range is given."""

_SAMPLES = 1_000_000  # values of a band that its percentiles are taken of
_FIELDS = ("channels", "dtype", "mean", "std", "bands", "display_range")


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """Channels, dtype, normalization and display of images.

    Attributes:
        channels: C, of every image [H, W, C].
        dtype: "uint8", "uint16" or "float32": the numbers in the files, none of whose bits are lost.
        mean, std: C numbers each, in units of the stored values; the network sees ``(image - mean) / std``. None
            where they are not known yet.
        bands: one or three channels, counted from 1, that make the grey or the red, green and blue of a picture.
        display_range: the values that a picture shows as black and as white. None: values of uint8 as they are, of
            others the 2nd to the 98th percentile of each band of each image.

    Raises:
        ValueError: an attribute out of its range, or a number of means, deviations or bands that does not fit.

    Example:
        >>> images = ImageFormat(12, "uint16", mean=[1100.0] * 12, std=[400.0] * 12, bands=(4, 3, 2))
    """

    channels: int = 3
    dtype: str = "uint8"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bands: tuple[int, ...] | None = None
    display_range: tuple[float, float] | None = None

    def __post_init__(self):
        if self.channels < 1:
            raise ValueError(f"channels: must be at least 1, got {self.channels}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        mean, std = self.mean, self.std
        if mean is None and std is None and self.is_photograph:
            mean, std = MEAN.tolist(), STD.tolist()
        bands = self.bands or ((1, 2, 3) if self.channels >= 3 else (1,))
        check_statistics(mean, std, self.channels)
        check_bands(bands, self.channels)
        check_range(self.display_range)
        for name, value in (("mean", mean), ("std", std), ("display_range", self.display_range)):
            object.__setattr__(self, name, None if value is None else tuple(float(number) for number in value))
        object.__setattr__(self, "bands", tuple(int(band) for band in bands))

    @property
    def is_photograph(self) -> bool:
        """Whether files are read as pictures of three colours in 8 bits, whatever they hold (see `pixels`)."""
        return self.channels == 3 and self.dtype == "uint8"

    @property
    def bytes_per_pixel(self) -> int:
        return self.channels * np.dtype(self.dtype).itemsize

    @property
    def fill(self) -> np.ndarray:
        """float32 [C]: the mean, which is 0 once normalized.

        Raises:
            ValueError: it is not known.
        """
        return self._statistics[0]

    @property
    def scale(self) -> np.ndarray:
        """float32 [C]: the standard deviation; errors as of `fill`."""
        return self._statistics[1]

    @functools.cached_property
    def _statistics(self):
        if self.mean is None:
            raise ValueError(
                f"nothing says how images of {self.in_words()} are normalized: set data.mean and data.std (psanet data "
                "check --statistics computes them; psanet train does where they are missing)"
            )
        return np.array(self.mean, np.float32), np.array(self.std, np.float32)

    def normalize(self, image: _Image) -> _Image:
        """``(image - mean) / std`` per channel; see `psanet_tf.data.normalize`.

        Raises:
            ValueError: mean and standard deviation are not known.
        """
        return normalize(image, *self._statistics)

    def denormalized(self, image: np.ndarray) -> np.ndarray:
        """The stored values, rounded, of a normalized image [..., C]."""
        values = image * self.scale + self.fill
        if self.dtype == "float32":
            return values.astype(np.float32)
        return np.clip(np.round(values), 0, np.iinfo(self.dtype).max).astype(self.dtype)

    def checked(self, image: Any) -> np.ndarray:
        """`image` as a NumPy array.

        Raises:
            ValueError: it is not of this dtype and [H, W, C], or holds values that are not finite.
        """
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != self.channels or image.dtype != self.dtype or 0 in image.shape:
            colors = " (RGB)" if self.is_photograph else ""
            raise ValueError(
                f"image must be {self.dtype} [H, W, {self.channels}]{colors}, got {image.dtype} {list(image.shape)}"
            )
        if self.dtype == "float32" and not np.isfinite(image).all():
            raise ValueError(f"image must hold finite values, {(~np.isfinite(image)).sum()} of {image.size} are not")
        return image

    def picture(self, image: np.ndarray) -> np.ndarray:
        """An image as something to look at.

        Args:
            image: [H, W, C] of this dtype.

        Returns:
            uint8 [H, W, 3], RGB.
        """
        if self.is_photograph and self.bands == (1, 2, 3) and self.display_range is None:
            return image
        shown = np.stack([self._stretched(image[..., band - 1]) for band in self.bands], axis=-1)
        return np.repeat(shown, 3, axis=-1) if len(self.bands) == 1 else shown

    def _stretched(self, band):
        if self.display_range is not None:
            low, high = self.display_range
        elif self.dtype == "uint8":
            return band
        else:
            step = max(1, math.isqrt(band.size // _SAMPLES))
            low, high = np.percentile(band[::step, ::step], PERCENTILES)
        # A band of one value is neither black nor white.
        level = (band.astype(np.float32) - low) / (high - low) if high > low else np.full(band.shape, 0.5, np.float32)
        return np.round(np.clip(level, 0, 1) * 255).astype(np.uint8)

    def same_files(self, other: "ImageFormat") -> bool:
        """Whether both are read from files alike."""
        return (self.channels, self.dtype) == (other.channels, other.dtype)

    def shown_as(self, other: "ImageFormat") -> "ImageFormat":
        """This format with the display of another one."""
        return dataclasses.replace(self, bands=other.bands, display_range=other.display_range)

    def in_words(self) -> str:
        """ "12 channels of uint16" """
        return f"{counted(self.channels, 'channel')} of {self.dtype}"

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes back; plain lists and numbers, for JSON."""
        values = {name: getattr(self, name) for name in _FIELDS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImageFormat":
        """Raises ValueError, KeyError or TypeError if `values` lacks something of what `to_dict` gives."""
        values = {name: values[name] for name in _FIELDS}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


PHOTOGRAPHS = ImageFormat()
"""Pictures of three colours in 8 bits, normalized by ImageNet's statistics: what the paper's datasets are."""


def image_format(data: "DataSection") -> ImageFormat:
    """The format of a dataset's images.

    Args:
        data: a `DataSection`; mean and standard deviation are None where it leaves open what must be computed.
    """
    display = data.display
    return ImageFormat(data.channels, data.dtype, data.mean, data.std, display.bands, display.range)
