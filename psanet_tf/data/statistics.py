"""Mean and standard deviation of each channel of a split's images, in one pass that holds one image per thread."""

import dataclasses
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from psanet_tf.config import Config, DataSection
from psanet_tf.cores import usable_cores
from psanet_tf.data.image_format import image_format
from psanet_tf.data.pixels import decode_image
from psanet_tf.data.readers import encoded_example, list_examples
from psanet_tf.progress import track

_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class Moments:
    """Sums over pixels from which mean and deviation come.

    Attributes:
        count: pixels.
        mean: float64 [C].
        squares: float64 [C], sum of squared differences from the mean.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray) -> "Moments":
        """Of one image [H, W, C]."""
        values = image.reshape(-1, image.shape[-1])
        mean = values.mean(axis=0, dtype=np.float64)
        squares = np.array([np.square(values[:, index] - mean[index]).sum() for index in range(values.shape[1])])
        return cls(len(values), mean, squares)

    def __add__(self, other: "Moments") -> "Moments":
        """Of both together, without the cancellation of sums of squares (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        difference = other.mean - self.mean
        mean = self.mean + difference * (other.count / count)
        squares = self.squares + other.squares + difference**2 * (self.count * other.count / count)
        return Moments(count, mean, squares)

    def statistics(self, what: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, standard deviation) of the channels, to six digits.

        Args:
            what: whose they are, for messages.

        Raises:
            ValueError: a channel has one value everywhere.
        """
        std = np.sqrt(self.squares / self.count)
        if (std == 0).any():
            channel = int(np.argmin(std))
            raise ValueError(
                f"channel {channel + 1} of {what} has the value {self.mean[channel]:g} everywhere, so there is nothing "
                "to divide by: leave it out of the files, or set data.mean and data.std (1 for this one)"
            )
        return _rounded(self.mean), _rounded(std)


def combined(moments: Iterable[Moments]) -> Moments | None:
    """The sum in the order in which they come, the same at every call; None of none."""
    total = None
    for item in moments:
        total = item if total is None else total + item
    return total


def training_statistics(data: DataSection, workers: int | None = None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of the training images, in units of the stored values.

    Args:
        data: a `DataSection`.
        workers: threads; default: processor cores.

    Returns:
        (mean, std), C numbers each.

    Raises:
        ValueError, OSError: as `list_examples`; an image that cannot be read, unless ``data.on_error`` is skip; a
            channel of one value.
    """
    images, examples = image_format(data), list_examples(data, data.train_split)

    def moments(example):
        try:
            return Moments.of(
                decode_image(encoded_example(example)[0], getattr(example, "where", example.image_path), images)
            )
        except (ValueError, OSError):
            if data.on_error == "raise":
                raise
            return None

    what = f"the images of split {data.train_split!r}"
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        found = track(pool.map(moments, examples), "computing mean and deviation", len(examples))
        total = combined(item for item in found if item is not None)
    if total is None:
        raise ValueError(f"not one of {what} can be read (data.root {data.root})")
    return total.statistics(what)


def with_statistics(config: Config, known: DataSection | None = None) -> tuple[Config, str | None]:
    """A configuration whose `data.mean` and `data.std` are known.

    Args:
        config: Config.
        known: `DataSection` of the run that goes on, whose numbers are taken; None for a new run.

    Returns:
        (Config, a line that says where they come from); the configuration itself and None for photographs, and where
        they are given.

    Raises:
        ValueError, OSError: as `training_statistics`.
    """
    data = config.data
    if image_format(data).mean is not None:
        return config, None
    if known is not None and known.mean is not None and image_format(known).same_files(image_format(data)):
        return _with(config, known.mean, known.std), None
    mean, std = training_statistics(data)
    line = f"mean and deviation of the training images: data.mean={list(mean)} data.std={list(std)}"
    return _with(config, mean, std), line


def in_yaml(mean: Sequence[float], std: Sequence[float]) -> str:
    """Two lines for the section `data:` of a configuration."""
    return f"  mean: {list(mean)}\n  std: {list(std)}"


def _with(config, mean, std):
    return config.model_copy(update={"data": config.data.model_copy(update={"mean": mean, "std": std})})


def _rounded(values):
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values)
