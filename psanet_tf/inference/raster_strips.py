"""The sliding window over a picture that is never in memory: column by column strip, band by band of finished rows."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from psanet_tf.inference.sliding_window import SlidingWindow, coverage
from psanet_tf.rasters.raster import Raster

_STRIP_BYTES = 512 * 2**20
"""Of the sums of probabilities that a strip keeps: of the rows that the next crops cover, too."""

_PICTURE_SIDE = 2048

NO_LABEL = 255


@dataclasses.dataclass(frozen=True)
class Strips:
    """Where the crops of a raster lie, and how they are dealt out into strips of columns.

    Crops begin where they do in `SlidingWindow` on the whole picture. The crops of a row of a strip finish a band of
    its rows; those over the seam of two strips are seen in both.

    Attributes:
        size: (rows, columns) of the raster.
        offset: (top, left) of the raster in what is padded to a crop.
        row_origins, column_origins: where crops begin, in what is padded.
        bounds: (first, last + 1) crop along the columns whose columns a strip finishes, for each.
        crop_size: rows and columns of a crop.
    """

    size: tuple[int, int]
    offset: tuple[int, int]
    row_origins: Sequence[int]
    column_origins: Sequence[int]
    bounds: Sequence[tuple[int, int]]
    crop_size: tuple[int, int]

    def rows(self, band: int) -> tuple[int, int]:
        """(first, last + 1) row of the raster in a band."""
        return self._part(0, self.row_origins, band, band + 1)

    def columns(self, strip: int) -> tuple[int, int]:
        """(first, last + 1) column of the raster in a strip."""
        return self._part(1, self.column_origins, *self.bounds[strip])

    @property
    def picture_step(self) -> int:
        """Every which row and column is shown in a picture of the whole."""
        return -(-max(self.size) // _PICTURE_SIDE)

    def shown(self, array: np.ndarray, row: int, column: int) -> np.ndarray:
        """What of a part of the raster [h, w, ...], whose upper left pixel is (row, column), is in the picture."""
        step = self.picture_step
        first, left = (step // 2 - row) % step, (step // 2 - column) % step
        # A copy: what is kept of a band must not keep the band.
        return array[first::step, left::step].copy()

    def crops_across(self, strip: int) -> range:
        """The crops along the columns that a strip sees: those in its bounds, and those before that reach into it."""
        first, stop = self.bounds[strip]
        return range(_first_over(self.column_origins, self.crop_size[1], first), stop)

    def bands_from(self, band: int) -> range:
        """The rows of crops that are seen for the bands from `band` on: these, and those before that reach into it."""
        return range(_first_over(self.row_origins, self.crop_size[0], band), len(self.row_origins))

    def _part(self, axis, origins, first, stop):
        end = origins[stop] if stop < len(origins) else origins[-1] + self.crop_size[axis]
        offset, length = self.offset[axis], self.size[axis]
        return max(0, origins[first] - offset), min(length, end - offset)


def strips_of(window: SlidingWindow, size: tuple[int, int], at_least: int = 1) -> Strips:
    """As few strips as fit into memory.

    Args:
        window: what is done.
        size: (rows, columns) of the raster.
        at_least: strips, where there are crops enough for as many.
    """
    padded = tuple(max(side, crop) for side, crop in zip(size, window.crop_size, strict=True))
    offset = tuple((side - own) // 2 for side, own in zip(padded, size, strict=True))
    rows, columns = window.origins(padded)
    kept = max((rows[index] + window.crop_size[0] - rows[index + 1] for index in range(len(rows) - 1)), default=0)
    # Rows of pixels are joined to those before; three times as much is there for a moment.
    per_column = max(kept * window.num_classes * 4, 3 * window.crop_size[0] * (window.images.bytes_per_pixel + 1))
    widest = _STRIP_BYTES // per_column
    count = max(at_least, -(-padded[1] // max(widest, window.crop_size[1])))
    count = min(count, len(columns))
    edges = [round(index * len(columns) / count) for index in range(count + 1)]
    bounds = tuple(itertools.pairwise(edges))
    return Strips(tuple(size), offset, tuple(rows), tuple(columns), bounds, window.crop_size)


@dataclasses.dataclass(frozen=True)
class Band:
    """Finished rows of a strip.

    Attributes:
        strip, band: which.
        labels: uint8 [rows, columns], classes, or `NO_LABEL` where the raster holds no image.
        confidence: uint8 [rows, columns], the probability of the label in 255ths, 0 without one.
        picture: [., ., C], the pixels of them that `Strips.shown` gives.
    """

    strip: int
    band: int
    labels: np.ndarray
    confidence: np.ndarray
    picture: np.ndarray


def label_strip(
    window: SlidingWindow, raster: Raster, strips: Strips, strip: int, first_band: int = 0
) -> Iterator[Band | None]:
    """Labels a strip from top to bottom; of the pixels with an image exactly as `window` does at scale 1.

    What holds no image is the mean colour to the network; crops without any image it does not see.

    Args:
        window: crops, network, and mirror images; its scales do not count.
        raster: of the size of `strips`.
        strips, strip: which strip.
        first_band: the first band that is wanted.

    Yields:
        None after each crop, and a `Band` after the last one of its row.

    Raises:
        ValueError: the raster cannot be read.
    """
    crop_height, crop_width = window.crop_size
    rows, columns = strips.row_origins, strips.column_origins
    first_column = strips.bounds[strip][0]
    across = strips.crops_across(strip)
    source = _Rows(raster, strips, columns[across[0]], columns[across[-1]] + crop_width)
    sums = _Sums(window, strips)
    starts = [columns[index] - columns[across[0]] for index in across]
    widths = [sums.width(index) for index in across]
    for band in strips.bands_from(first_band):
        pixels, valid = source.read(rows[band])
        step = (rows[band + 1] if band + 1 < len(rows) else rows[band] + crop_height) - rows[band]
        labels, confidences = [], []
        for index, piece in zip(across, _finished_columns(window, pixels, valid, starts, widths), strict=True):
            yield None
            if index < first_column:
                continue
            finished = sums.finish(band, index, piece, step)
            label, confidence = _labels(finished, step, sums.width(index))
            labels.append(label)
            confidences.append(confidence)
        if band >= first_band:
            yield _band(strips, strip, band, np.hstack(labels), np.hstack(confidences), source)


class _Rows:
    """The pixels of a strip's crops, read from top to bottom; rows that the next crops cover too are kept."""

    def __init__(self, raster, strips, left, right):
        self._raster, self._strips, self._left, self._right = raster, strips, left, right
        self._held = None  # (first row, pixels, valid)

    def read(self, row):
        """([crop rows, columns, C], bool [crop rows, columns]) from `row` on, in what is padded."""
        height = self._strips.crop_size[0]
        if self._held is not None and row < self._held[0] + height:
            first, pixels, valid = self._held
            new_pixels, new_valid = self._padded(first + height, row - first)
            pixels, valid = (
                np.concatenate([old[row - first :], new]) for old, new in ((pixels, new_pixels), (valid, new_valid))
            )
        else:
            pixels, valid = self._padded(row, height)
        self._held = row, pixels, valid
        return pixels, valid

    def part(self, first_row, last_row, first_column, last_column):
        """(pixels, bool) of rows and columns of the raster, among those that were read last."""
        top, left = self._held[0] - self._strips.offset[0], self._left - self._strips.offset[1]
        place = slice(first_row - top, last_row - top), slice(first_column - left, last_column - left)
        return self._held[1][place], self._held[2][place]

    def _padded(self, row, height):
        """Rows of what is padded, of which the raster is a part."""
        (top, left), (rows, columns) = self._strips.offset, self._strips.size
        pixels = np.zeros((height, self._right - self._left, self._raster.images.channels), self._raster.images.dtype)
        valid = np.zeros(pixels.shape[:2], bool)
        begin, end = max(0, row - top), min(rows, row + height - top)
        first, last = max(0, self._left - left), min(columns, self._right - left)
        place = slice(begin + top - row, end + top - row), slice(first + left - self._left, last + left - self._left)
        pixels[place], valid[place] = self._raster.read(begin, first, end - begin, last - first)
        return pixels, valid


class _Sums:
    """The sums of probabilities in the rows of a strip that the next crops cover, too."""

    def __init__(self, window, strips):
        self._window, self._strips = window, strips
        self._coverage = [
            coverage(origins, crop)
            for origins, crop in zip((strips.row_origins, strips.column_origins), window.crop_size, strict=True)
        ]
        self._kept = {}  # {crop along the columns: float32 [rows, columns, K]}, only of those with an image

    def width(self, index):
        """Columns that are finished once the crop `index` along the columns is seen."""
        origins = self._strips.column_origins
        end = origins[index + 1] if index + 1 < len(origins) else origins[-1] + self._window.crop_size[1]
        return end - origins[index]

    def finish(self, band, index, piece, step):
        """float32 [step, columns, K]: probabilities of the rows that are finished; None where there is no image.

        Args:
            piece: [crop rows, columns, K], sums over the crops of this row, or None.
        """
        above = self._kept.pop(index, None)
        if piece is None and above is None:
            return None
        if piece is None:
            # Of no more rows than those above, so that it ends where their crops end.
            piece = np.zeros((max(step, len(above)), *above.shape[1:]), np.float32)
        if above is not None:
            piece[: len(above)] += above
        if step < len(piece):
            self._kept[index] = piece[step:].copy()
        row, column = self._strips.row_origins[band], self._strips.column_origins[index]
        down = self._coverage[0][row : row + step, None, None]
        across = self._coverage[1][column : column + piece.shape[1], None]
        return piece[:step] / (down * across * np.float32(self._window.images_per_crop))


def _finished_columns(window, pixels, valid, starts, widths):
    """Yields float32 [crop rows, columns, K], sums over the crops of a row, for the columns that each crop finishes.

    None where none of these crops holds an image.
    """
    unfinished = None
    for step, probability in zip(widths, _probabilities(window, pixels, valid, starts), strict=True):
        if probability is None and unfinished is None:
            yield None
            continue
        if probability is None:
            # Of no more columns than the crops before reach over.
            columns = max(step, unfinished.shape[1])
            probability = np.zeros((len(unfinished), columns, unfinished.shape[2]), np.float32)
        if unfinished is not None:
            probability[:, : unfinished.shape[1]] += unfinished
        unfinished = probability[:, step:].copy() if step < probability.shape[1] else None
        yield probability[:, :step]


def _probabilities(window, pixels, valid, starts):
    """Yields float32 [h, w, K] for each crop of a row, None of those without an image."""
    width = window.crop_size[1]
    has_image = [bool(valid[:, start : start + width].any()) for start in starts]
    seen = _seen(window, pixels, valid, [start for start, seen in zip(starts, has_image, strict=True) if seen])
    for one in has_image:
        yield next(seen) if one else None


def _seen(window, pixels, valid, starts):
    width = window.crop_size[1]
    for first in range(0, len(starts), window.crops_per_call):
        crops = []
        for start in starts[first : first + window.crops_per_call]:
            normalized = window.images.normalize(tf.convert_to_tensor(_finite(pixels[:, start : start + width])))
            crops.append(tf.where(valid[:, start : start + width, None], normalized, 0.0))
        for probability in window.crop_probabilities(tf.stack(crops)):
            yield probability.numpy()


def _finite(pixels):
    return np.nan_to_num(pixels) if pixels.dtype.kind == "f" else pixels


def _labels(probabilities, rows, columns):
    """(labels, confidence), uint8 [rows, columns]"""
    if probabilities is None:
        return np.full((rows, columns), NO_LABEL, np.uint8), np.zeros((rows, columns), np.uint8)
    labels = probabilities.argmax(-1).astype(np.uint8)
    # The most probable of 254 classes at most has more than 1/255: 0 is left for what has no label.
    return labels, np.round(np.clip(probabilities.max(-1), 0, 1) * 255).astype(np.uint8)


def _band(strips, strip, band, labels, confidence, source):
    (first_row, last_row), (first_column, last_column) = strips.rows(band), strips.columns(strip)
    top = max(0, strips.offset[0] - strips.row_origins[band])
    left = max(0, strips.offset[1] - strips.column_origins[strips.bounds[strip][0]])
    place = slice(top, top + last_row - first_row), slice(left, left + last_column - first_column)
    pixels, has_image = source.part(first_row, last_row, first_column, last_column)
    labels = np.where(has_image, labels[place], np.uint8(NO_LABEL))
    confidence = np.where(has_image, confidence[place], np.uint8(0))
    return Band(strip, band, labels, confidence, strips.shown(pixels, first_row, first_column))


def _first_over(origins, crop, index):
    """The first crop along an axis that reaches beyond where the crop `index` begins."""
    return next(first for first in range(index + 1) if origins[first] + crop > origins[index])
