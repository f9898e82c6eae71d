"""How much one request may ask of an exported model: its graph refuses more, whatever serves it."""

import dataclasses

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat

# A decoded photograph of this size takes 96 MB; more is refused before it is decoded.
MAX_PIXELS = 32_000_000
# The same for what a network of any size sees at its own size.
MAX_WHOLE_PIXELS = 1025 * 2049
# Rows and columns are then padded to 8n + 1: little, but for an image of a few rows. Features of as many pixels take a
# gigabyte.
MAX_SEEN_PIXELS = 1089 * 2177
MAX_IMAGES = 16
# Logits and features of a batch are in memory while it is labelled.
MAX_LOGIT_BYTES = 2**30
MAX_BATCH_PIXELS = 4 * MAX_WHOLE_PIXELS
# Of one answer, which is three to five times as long as JSON.
MAX_PROBABILITY_BYTES = 256 * 2**20
MAX_MAP_BYTES = 64 * 2**20
# As many images of the network's own size as servers join (psanet_tf/export/saved_model.py) are always taken.
JOINED_IMAGES = 4


@dataclasses.dataclass(frozen=True)
class RequestLimits:
    """Those fields of `ModelMetadata` that bound a request; None where nothing is bounded.

    Attributes:
        max_pixels: of all images of a request to `predict_bytes` or `attention` together.
        max_images: of such a request.
        max_seen_pixels: of a network of any size: rows times columns of an image as the network sees it, padding
            included; None for one of a single size.
        max_label_pixels: B x H x W of a request to `serving_default`.
        max_probability_pixels: B x H x W of a request to `probabilities`.
        max_points: of all images of a request to `attention` together; None for a network without it.
    """

    max_pixels: int
    max_images: int | None = None
    max_seen_pixels: int | None = None
    max_label_pixels: int | None = None
    max_probability_pixels: int | None = None
    max_points: int | None = None


def request_limits(
    images: ImageFormat,
    num_classes: int,
    input_size: tuple[int, int] | None,
    resized_pixels: int | None = 0,
    map_positions: int = 1,
    directions: int = 0,
) -> RequestLimits:
    """The limits of an export.

    Args:
        images: `ImageFormat` of what it takes.
        num_classes: K.
        input_size: (rows, columns) of the network's input; None if it takes any.
        resized_pixels: of an image in one piece, twice as wide as high, as the export's own protocol resizes it,
            padding included: such images are always taken. None where they are seen at their own size.
        map_positions: of the attention map of the largest input.
        directions: of the attention; 0 for a network without it.
    """
    max_pixels, max_seen, always = max_pixels_of(images), None, MAX_WHOLE_PIXELS
    if input_size is None:
        max_seen = max(MAX_SEEN_PIXELS, resized_pixels or 0)
        max_pixels = min(max_pixels, MAX_WHOLE_PIXELS) if resized_pixels is None else max_pixels
    else:
        always = JOINED_IMAGES * input_size[0] * input_size[1]
    return RequestLimits(
        max_pixels,
        MAX_IMAGES,
        max_seen,
        max_label_pixels=max(min(MAX_LOGIT_BYTES // (4 * num_classes), MAX_BATCH_PIXELS), always),
        max_probability_pixels=max(MAX_PROBABILITY_BYTES // (4 * num_classes), 0 if input_size is None else always),
        max_points=MAX_MAP_BYTES // (4 * map_positions * directions) if directions else None,
    )


def max_pixels_of(images: ImageFormat) -> int:
    """Pixels of the largest image of a format that is decoded: as many bytes as `MAX_PIXELS` of a photograph."""
    return min(MAX_PIXELS, MAX_PIXELS * PHOTOGRAPHS.bytes_per_pixel // images.bytes_per_pixel)
