"""What the attention of a trained PSANet looks at, point by point."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.inference.whole_image import padded_length
from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet
from psanet_tf.ops import resample_bilinear
from psanet_tf.weights.description import images_of

DIRECTIONS = ("collect", "distribute")
LONGEST_SIDE = 1025  # of what a network of any size is shown; the attention grows with its fourth power


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where an image lies in the network's input, and the map of attention positions over that.

    Attributes:
        image_size: (H, W) of the image.
        resized_size: (H, W) of the image as the network sees it.
        offset: (top, left) of the resized image in the input.
        input_size: (H, W) of the input.
        map_size: (h, w) of the attention's map.
        first: (row, column) of the input's pixel that the map's first position looks at.
        step: (rows, columns) of the input from one position of the map to the next.
    """

    image_size: tuple[int, int]
    resized_size: tuple[int, int]
    offset: tuple[int, int]
    input_size: tuple[int, int]
    map_size: tuple[int, int]
    first: tuple[float, float]
    step: tuple[float, float]

    def position(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the attention map whose position looks nearest to the pixel (x, y) of the image."""
        indices = []
        for axis, coordinate in enumerate((y, x)):
            scale = self.resized_size[axis] / self.image_size[axis]
            in_input = (coordinate + 0.5) * scale - 0.5 + self.offset[axis]
            index = round((in_input - self.first[axis]) / self.step[axis])
            indices.append(int(np.clip(index, 0, self.map_size[axis] - 1)))
        return tuple(indices)

    def to_image(self, maps: np.ndarray) -> np.ndarray:
        """Brings maps [P, h, w] to float32 [P, H, W]: the weights at the image's own pixels.

        Pixels beyond the outermost positions get the weights of these, as they get their logits.
        """
        maps = tf.convert_to_tensor(maps, tf.float32)[..., None]
        full = resample_bilinear(maps, self.input_size, self.step, self.first)
        (top, left), (height, width) = self.offset, self.resized_size
        return tf.image.resize(full[:, top : top + height, left : left + width], self.image_size)[..., 0].numpy()


@dataclasses.dataclass(frozen=True)
class AttentionMaps:
    """Attention at some points of an image.

    Attributes:
        points: ((x, y), ...) in pixels of the image.
        collect: float32 [P, h, w] or None: the weight with which each point gathers from each position. With
            `psa_softmax` each map sums to 1.
        distribute: float32 [P, h, w] or None: the weight that each position gives to what the point hands out. With
            `psa_softmax` the weights that one position gives to all points of the map sum to 1.
        placement: where the maps lie on the image; ``placement.to_image(maps.collect)`` are heat maps of the
            image's size.
    """

    points: tuple[tuple[float, float], ...]
    collect: np.ndarray | None
    distribute: np.ndarray | None
    placement: Placement

    def directions(self) -> dict[str, np.ndarray]:
        """{"collect": maps, "distribute": maps}, those that the network has."""
        return {name: getattr(self, name) for name in DIRECTIONS if getattr(self, name) is not None}


def attention_maps(
    model: PSANet, image: np.ndarray, points: Iterable[tuple[float, float]], images: ImageFormat | None = None
) -> AttentionMaps:
    """Attention maps of a PSANet (paper, section 3.1 and figure 6) at points of an image.

    A network of one size sees the image reduced to fit into its crop, and padded with the mean colour; one of any
    size sees it at its own size, up to 1025 pixels.

    Args:
        model: `PSANet` with attention.
        image: uint8 [H, W, 3], RGB, or [H, W, C] as `images` says.
        points: sequence of (x, y), pixels from the left and from the top.
        images: `ImageFormat`; default: what the model's description says, else photographs.

    Returns:
        AttentionMaps.

    Raises:
        ValueError: the network has no attention, no points, a point outside of the image, or `image` is not what
            `images` says; nothing says how it is normalized.

    Example:
        >>> maps = attention_maps(model, image, [(310, 220)])
        >>> heat = maps.placement.to_image(maps.collect)[0]     # float32 [H, W]
    """
    images = images_of(model) if images is None else images
    image = images.checked(image)
    points = checked_points(points, image.shape[:2])
    return maps_at(points, *attention_matrices(model, image, images))


def maps_at(
    points: tuple[tuple[float, float], ...], matrices: dict[str, np.ndarray], placement: Placement
) -> AttentionMaps:
    """The maps of points of the image: rows and columns of the matrices that `attention_matrices` gives."""
    positions = [placement.position(x, y) for x, y in points]
    flat = [row * placement.map_size[1] + column for row, column in positions]
    shape = (len(points), *placement.map_size)
    collect, distribute = (matrices.get(name) for name in DIRECTIONS)
    return AttentionMaps(
        points,
        None if collect is None else collect[flat].reshape(shape),
        None if distribute is None else distribute[:, flat].T.reshape(shape),
        placement,
    )


def attention_matrices(
    model: PSANet, image: np.ndarray, images: ImageFormat = PHOTOGRAPHS
) -> tuple[dict[str, np.ndarray], Placement]:
    """The attention between all positions; arguments as of `attention_maps`.

    Returns:
        ({direction: float32 [h * w, h * w]}, Placement); rows are destinations, columns sources.
    """
    if not model.get_config()["use_psa"]:
        raise ValueError(f"{model.name!r} was built with use_psa=False and has no attention to show")
    layer = model.get_layer("psa")
    place = placed(image.shape[:2], model.input_shape[1:3])
    size = place[2]
    map_grid = [tuple(values.numpy().tolist()) for values in attention_grid(model, size, model.feature_size(size))]
    placement = Placement(image.shape[:2], *place, *map_grid)
    inputs = placed_pixels(image, place, images)[None]
    features = keras.Model(model.inputs[0], layer.input)(inputs, training=False)
    attention = layer.attention(features)
    return {name: tf.cast(matrix[0], tf.float32).numpy() for name, matrix in attention.items()}, placement


def grid_points(size: Sequence[int], rows: int, columns: int) -> tuple[tuple[int, int], ...]:
    """((x, y), ...) in the middles of rows x columns equal cells of an image of `size` (H, W), row by row."""
    height, width = size
    return tuple(
        (int((column + 0.5) * width / columns), int((row + 0.5) * height / rows))
        for row in range(rows)
        for column in range(columns)
    )


def checked_points(points: Iterable[tuple[float, float]], image_size: Sequence[int]) -> tuple[tuple[float, float], ...]:
    """Points (x, y) of an image of `image_size` (H, W), as floats.

    Raises:
        ValueError: there are none, or one lies outside of the image.
    """
    height, width = image_size
    points = tuple((float(x), float(y)) for x, y in points)
    if not points:
        raise ValueError("attention_maps needs at least one point (x, y)")
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"point {x:g},{y:g} lies outside of the image: x must be below {width}, y below {height}")
    return points


def placed(
    image_size: Sequence[int], input_size: Sequence[int | None]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """How an image is shown to a network.

    Args:
        image_size: (H, W).
        input_size: (H, W) that the network takes; (None, None) for any size.

    Returns:
        (resized_size, offset, input_size) of `Placement`.
    """
    if None in input_size:
        scale = min(1.0, LONGEST_SIDE / max(image_size))
    else:
        scale = min(1.0, *(full / length for full, length in zip(input_size, image_size, strict=True)))
    height, width = (max(1, round(scale * length)) for length in image_size)
    rows, columns = (padded_length(height), padded_length(width)) if None in input_size else input_size
    return (height, width), ((rows - height) // 2, (columns - width) // 2), (rows, columns)


def placed_pixels(image: np.ndarray, place: tuple[Sequence[int], ...], images: ImageFormat = PHOTOGRAPHS) -> tf.Tensor:
    """What a network is shown of an image: normalized float32 [H, W, C] of the input size of its `placed`."""
    resized_size, offset, size = place
    resized = tf.image.resize(image, resized_size)
    padding = [[first, size[axis] - first - resized_size[axis]] for axis, first in enumerate(offset)]
    # The mean colour is 0 once normalized.
    return tf.pad(images.normalize(resized), [*padding, [0, 0]])


def placement_of_box(
    image_size: Sequence[int],
    resized_size: tuple[int, int],
    offset: tuple[int, int],
    input_size: tuple[int, int],
    map_size: Sequence[int],
    box: np.ndarray,
) -> Placement:
    """The `Placement` with the image's `box`, (top, left, bottom, right) in map positions; the rest are its fields."""
    box = [float(edge) for edge in box]
    step = [length / (box[2 + axis] - box[axis]) for axis, length in enumerate(resized_size)]
    first = [offset[axis] - 0.5 - step[axis] * box[axis] for axis in (0, 1)]
    return Placement(tuple(image_size), resized_size, offset, input_size, tuple(map_size), tuple(first), tuple(step))


def attention_grid(
    model: PSANet, input_size: Sequence[int | tf.Tensor], feature_size: Sequence[int | tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where a network's attention looks in its input; works in graphs, too.

    Positions lie where the logits of their features are put: from corner to corner for the networks of the paper, else
    where the features look.

    Args:
        model: `PSANet` with attention.
        input_size: (H, W), integers or scalar integer tensors.
        feature_size: (rows, columns) of the features of such an input.

    Returns:
        (map_size, first, step) of `Placement`: int32, float64 and float64, [2] each.
    """
    map_size, first, step = model.get_layer("psa").shrunk_grid(feature_size)
    grid = model.get_layer("logits").grid
    if grid is None:
        last = tf.cast(tf.stack(input_size) - 1, tf.float64)
        return map_size, tf.zeros_like(last), last / tf.cast(tf.maximum(map_size - 1, 1), tf.float64)
    stride, *offset = grid
    return map_size, stride * first + offset, stride * step
