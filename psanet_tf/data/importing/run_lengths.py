"""Masks as lengths of runs, in the forms of the annotation tools."""

from collections.abc import Sequence

import numpy as np

from psanet_tf.extras import needs_extra


def alternating_runs(lengths: Sequence[int], count: int, where: str) -> np.ndarray:
    """bool [count] of lengths of runs that are outside and inside by turns, beginning outside.

    Raises:
        ValueError: the lengths do not sum up to `count`.
    """
    lengths = np.asarray(lengths, np.int64)
    if (lengths.size and lengths.min() < 0) or lengths.sum() != count:
        raise ValueError(f"{where}: the runs of a mask sum up to {lengths.sum()} pixels, it has {count}: damaged")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def coco_mask(segmentation: dict, where: str) -> np.ndarray:
    """bool [H, W] of COCO's ``{"size": [H, W], "counts": ...}``, whose runs go down the columns.

    Args:
        segmentation: with a list of lengths, or a string, for which pycocotools is needed.
        where: what messages call the file.

    Raises:
        ValueError: damaged.
        ImportError: a string, and pycocotools is not installed.
    """
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    if isinstance(counts, str):
        with needs_extra("coco", f"{where}: compressed masks"):
            from pycocotools import mask as coco
        return coco.decode({"size": [height, width], "counts": counts.encode()}).astype(bool)
    return alternating_runs(counts, height * width, where).reshape(width, height).T


def label_studio_mask(data: Sequence[int], size: tuple[int, int], where: str) -> np.ndarray:
    """bool [H, W] of a brush of Label Studio: where the alpha channel of the picture that is packed in it is set.

    The form is that of the JavaScript library ``@thi.ng/rle-pack``: a header of bits (number of words, bits of a word,
    bits of four kinds of lengths), then blocks of a word that is repeated, or of words that differ.

    Args:
        data: bytes, as integers.
        size: rows and columns.
        where: what messages call the file.

    Raises:
        ValueError: it is cut short, or of another size.
    """
    bits = _Bits(data, where)
    count, word_bits = bits.read(32), bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    if word_bits > 8 or count != 4 * size[0] * size[1]:
        raise ValueError(
            f"{where}: a brush holds {count} values of {word_bits} bits, {4 * size[0] * size[1]} bytes are wanted for "
            f"{list(size)}"
        )
    words = np.zeros(count, np.uint8)
    place = 0
    while place < count:
        is_repeated = bits.read(1)
        end = place + 1 + bits.read(length_bits[bits.read(2)])
        if is_repeated:
            words[place:end] = bits.read(word_bits)
        else:
            words[place:end] = bits.read_many(end - place, word_bits)
        place = end
    return words.reshape(*size, 4)[..., 3] > 0


class _Bits:
    """Numbers of any number of bits, most significant first."""

    def __init__(self, data, where):
        self._bits = np.unpackbits(np.array(data, np.uint8))
        self._place = 0
        self._where = where

    def read(self, count):
        return int(self.read_many(1, count)[0])

    def read_many(self, times, count):
        part = self._bits[self._place : self._place + times * count]
        if len(part) < times * count:
            raise ValueError(f"{self._where}: a brush is cut short after {len(self._bits) // 8} bytes")
        self._place += times * count
        return part.reshape(times, count) @ (1 << np.arange(count - 1, -1, -1, dtype=np.int64))
