"""As `headers`, of scalar string tensors: what stands in front of the pixels of JPEG and PNG files."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from psanet_tf.data.headers import EXIF_MAGIC, JPEG_MAGIC, LONG, ORIENTATION_TAG, PNG_KIND, PNG_MAGIC, SHORT, UPRIGHT

_STRING = tf.TensorSpec([], tf.string)
_HEADER_END = len(PNG_MAGIC) + 25  # of a PNG's first chunk


class PngHeader(NamedTuple):
    """Attributes:
    depth, color_type: int32, from the header chunk.
    has_transparency: bool, whether there is a chunk tRNS before the pixels.
    end: int64, where the chunks before the pixels end.
    orientation: int32, 1..8.
    """

    depth: tf.Tensor
    color_type: tf.Tensor
    has_transparency: tf.Tensor
    end: tf.Tensor
    orientation: tf.Tensor


def starts_with(data: tf.Tensor, magic: bytes) -> tf.Tensor:
    return tf.strings.substr(data, 0, len(magic)) == magic


def is_jpeg(data: tf.Tensor) -> tf.Tensor:
    return starts_with(data, JPEG_MAGIC)


def is_png(data: tf.Tensor) -> tf.Tensor:
    return starts_with(data, PNG_MAGIC)


def has_pixels_first(data: tf.Tensor) -> tf.Tensor:
    """Whether nothing but the header chunk is in front of a PNG's pixels; bool."""
    return tf.strings.substr(data, _HEADER_END + 4, 4) == b"IDAT"


def called_rarely(*signature: tf.TensorSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function of tensors one that is called, and not made part of the caller's graph.

    Operations in a branch that is not taken cost time, too: all of them are told that they have nothing to do.
    """
    return tf.function(input_signature=signature or None, autograph=False, experimental_attributes={"_noinline": True})


def jpeg_orientation(data: tf.Tensor) -> tf.Tensor:
    """int32, 1..8, of a string that begins as a JPEG file."""
    # Most files have a JFIF segment of 16 bytes and then the tables, so there is nothing to look for.
    usual = (tf.strings.substr(data, 2, 4) == b"\xff\xe0\0\x10") & (tf.strings.substr(data, 20, 2) == b"\xff\xdb")
    return tf.cond(usual, lambda: UPRIGHT, lambda: _jpeg_orientation(data))


@called_rarely(_STRING)
def _jpeg_orientation(data):
    length = tf.strings.length(data)

    def step(place, _, __):
        segment = _bytes(data, place, 10)
        end = place + 2 + segment[2] * 256 + segment[3]
        marker = segment[1]
        goes_on = (segment[0] == 0xFF) & (((marker >= 0xE0) & (marker <= 0xEF)) | (marker == 0xFE)) & (end >= place + 4)
        is_exif = goes_on & (marker == 0xE1) & tf.reduce_all(segment[4:] == list(EXIF_MAGIC))
        start = tf.where(is_exif, place + 10, 0)
        return tf.where(goes_on & ~is_exif, end, length), start, tf.where(is_exif, end, 0)

    _, start, end = tf.while_loop(lambda place, *_: place + 10 <= length, step, (2, 0, 0))
    return _orientation_at(data, start, end)


def png_header(data: tf.Tensor) -> PngHeader:
    """`PngHeader` of a string that begins as a PNG file.

    Raises:
        tf.errors.InvalidArgumentError: it ends within the header.
    """
    kind = tf.cast(tf.io.decode_raw(tf.strings.substr(data, PNG_KIND.start, 2), tf.uint8), tf.int32)

    def nothing():
        return PngHeader(kind[0], kind[1], tf.constant(False), tf.constant(_HEADER_END, tf.int64), UPRIGHT)

    def something():
        return PngHeader(kind[0], kind[1], *_before_pixels(data))

    return tf.cond(has_pixels_first(data), nothing, something)


@called_rarely(_STRING)
def _before_pixels(data):
    """The last three fields of `PngHeader`."""
    length = tf.cast(tf.strings.length(data), tf.int64)

    def step(place, _, has_transparency, start, end):
        size = _number(_bytes(data, place, 4), tf.constant(True))
        name = tf.strings.substr(data, place + 4, 4)
        done = (name == b"IDAT") | (name == b"IEND")
        is_exif = (name == b"eXIf") & (start == 0)
        return (
            tf.where(done, place, place + size + 12),
            done,
            has_transparency | (name == b"tRNS"),
            tf.where(is_exif, place + 8, start),
            tf.where(is_exif, place + 8 + size, end),
        )

    zero = tf.constant(0, tf.int64)
    place, _, has_transparency, start, end = tf.while_loop(
        lambda place, done, *_: ~done & (place + 8 <= length),
        step,
        (tf.constant(_HEADER_END, tf.int64), tf.constant(False), tf.constant(False), zero, zero),
    )
    orientation = _orientation_at(data, start, end)
    return has_transparency, tf.minimum(place, length), orientation


def _orientation_at(data, start, end):
    """Of the Exif block at these places; `start` 0: there is none."""
    return tf.cond(start > 0, lambda: _exif_orientation(tf.strings.substr(data, start, end - start)), lambda: UPRIGHT)


@called_rarely(_STRING)
def _exif_orientation(exif):
    exif = tf.cond(starts_with(exif, EXIF_MAGIC), lambda: tf.strings.substr(exif, len(EXIF_MAGIC), -1), lambda: exif)
    length = tf.cast(tf.strings.length(exif), tf.int64)
    big = starts_with(exif, b"MM\0*")
    readable = (big | starts_with(exif, b"II*\0")) & (length >= 8)

    def directory():
        start = _number(_bytes(exif, 4, 4), big)
        return tf.cond(start + 2 <= length, lambda: entries(start), lambda: UPRIGHT)

    def entries(start):
        count = tf.minimum(_number(_bytes(exif, start, 2), big), (length - start - 2) // 12)
        rows = tf.reshape(_bytes(exif, start + 2, 12 * count), [-1, 12])
        found = tf.where(_number(rows[:, :2], big) == ORIENTATION_TAG)[:, 0]
        return tf.cond(tf.size(found) > 0, lambda: value(rows[found[0]]), lambda: UPRIGHT)

    def value(row):
        kind = _number(row[2:4], big)
        number = tf.where(kind == SHORT, _number(row[8:10], big), _number(row[8:], big))
        sensible = ((kind == SHORT) | (kind == LONG)) & (_number(row[4:8], big) == 1) & (number >= 1) & (number <= 8)
        return tf.where(sensible, tf.cast(number, tf.int32), UPRIGHT)

    return tf.cond(readable, directory, lambda: UPRIGHT)


def _bytes(data, place, count):
    """int32 [count]; `place` and `count` are integers, or tensors of one type."""
    place = tf.convert_to_tensor(place)
    part = tf.io.decode_raw(tf.strings.substr(data, place, tf.cast(count, place.dtype)), tf.uint8)
    return tf.cast(tf.ensure_shape(part, [count if isinstance(count, int) else None]), tf.int32)


def _number(values, big_endian):
    """int64 [...] of bytes [..., n], big-endian or little-endian."""
    values = tf.cast(values, tf.int64)
    values = tf.where(big_endian, values, tf.reverse(values, [-1]))
    return tf.reduce_sum(values * [256**power for power in reversed(range(values.shape[-1]))], -1)
