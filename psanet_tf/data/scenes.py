"""A synthetic scene-parsing dataset whose labels need context from the far side of the image.

Each image shows a landscape under a sky: mountains, grass, trees, a path, two waters one above the other near one
edge, and two beacons near the opposite edge, each level with one of the waters. The lamp of the beacon level with it
tells the kind of a water: yellow a *pond*, red a *lake*, violet a *lagoon*, cyan a *reservoir*. Everything else in a
image (shape, colour, ripples and place of the waters, and all that lies around them) does not depend on the kinds, so

* no local appearance tells them apart: two images that differ in the kinds only have the same pixels everywhere
  except in the lamps;
* no look at the whole image without places tells either: the two kinds are drawn independently, so pooling all
  positions says which lamps there are, not which water each of them is level with;
* a lamp is at least `MIN_DISTANCE` = 80 pixels away from each pixel of every water. The receptive field of a dilated
  FCN with blocks [1, 1, 1, 1] is 143 pixels wide: 11 after the stem, 15 after the pooling, 23, 31, 63 and 127 after
  the four stages (strides 4, 8, 8, 8; dilations 1, 1, 2, 4), 143 after the 3x3 convolution of the head. That is 71
  pixels to either side of a feature, and an output pixel is interpolated from features at most 7 pixels away from it:
  nothing farther off than 78 pixels can change its class.

All other classes can be told from a few pixels around. `psanet_tf.data.scene_files` writes them.
"""

import dataclasses

import numpy as np

from psanet_tf.data.catalog import dataset_info
from psanet_tf.data.scene_canvas import SceneCanvas

MIN_DISTANCE = 80
MIN_SIZE = 161
KINDS = ("pond", "lake", "lagoon", "reservoir")
LAMP_COLORS = ((250, 215, 40), (225, 35, 45), (150, 60, 220), (40, 215, 235))

_FAR_COLUMNS = 15  # the lamps keep to this many columns at the edge opposite to the waters


@dataclasses.dataclass(frozen=True)
class Scene:
    """One image.

    Attributes:
        image: uint8 [size, size, 3], RGB.
        label: uint8 [size, size], train ids.
        kinds: index into `KINDS` of the upper and of the lower water.
        lamps: bool [size, size], where a beacon's lamp is.
        waters: bool [size, size], where a water is.
    """

    image: np.ndarray
    label: np.ndarray
    kinds: tuple[int, int]
    lamps: np.ndarray
    waters: np.ndarray


def make_scene(seed: int, split: str, index: int, size: int = 161, kinds: tuple[int, int] | None = None) -> Scene:
    """Draws one image.

    Args:
        seed, split, index: which image; `split` is ``"training"`` or ``"validation"``.
        size: rows and columns, at least 161.
        kinds: index into `KINDS` for the upper and the lower water; drawn at random if None.

    Returns:
        Scene.

    Raises:
        ValueError: too small a size, a negative seed.
    """
    if size < MIN_SIZE:
        raise ValueError(f"size: lamps {MIN_DISTANCE} pixels away from waters need at least {MIN_SIZE}, got {size}")
    if seed < 0:
        raise ValueError(f"seed: must not be negative, got {seed}")
    key = [seed, ("training", "validation").index(split), index]
    scenery = np.random.default_rng([*key, 0])
    if kinds is None:
        kinds = tuple(int(kind) for kind in np.random.default_rng([*key, 1]).integers(0, len(KINDS), 2))
    canvas = _Canvas(size, size, scenery, dataset_info("scenes").class_names)
    horizon = canvas.draw_sky_and_mountains()
    canvas.draw_grass(horizon)
    canvas.draw_path(horizon)
    middle_rows = _water_rows(size)
    waters = [canvas.water_shape(row) for row in middle_rows]
    # No tree hides a water or stands among the beacons.
    canvas.draw_trees(horizon, waters[0] | waters[1] | (canvas.columns >= size - _FAR_COLUMNS - 4))
    for shape, kind in zip(waters, kinds, strict=True):
        canvas.draw_water(shape, KINDS[kind])
    lamps = np.zeros((size, size), bool)
    for row, kind in zip(middle_rows, kinds, strict=True):
        lamps |= canvas.draw_beacon(row, LAMP_COLORS[kind])
    layers = [canvas.finished_image(), canvas.label, lamps, waters[0] | waters[1]]
    if scenery.random() < 0.5:
        layers = [np.ascontiguousarray(layer[:, ::-1]) for layer in layers]
    image, label, lamps, waters = layers
    return Scene(image, label, kinds, lamps, waters)


def _water_rows(size):
    return round(0.45 * size), round(0.79 * size)


class _Canvas(SceneCanvas):
    """Waters on the left and beacons on the right."""

    def draw_path(self, horizon):
        middle = self.height * (0.62 + 0.05 * self.wave(60, 2, along_rows=True)) + self.rng.uniform(-6, 6)
        half_width = 2.5 + 6.5 * (self.rows - horizon) / (self.height - horizon)
        path = (abs(self.columns - middle) < half_width) & (self.rows > horizon)
        sand = np.array([200, 172, 120]) + self.rng.uniform(-10, 10, 3)
        self.paint(path, sand + 12 * self.noise(1.5)[..., None], "path")

    def water_shape(self, middle_row):
        """An irregular ellipse at least `MIN_DISTANCE` away from the lamps."""
        size, rng = self.height, self.rng
        right_end = size - _FAR_COLUMNS - MIN_DISTANCE
        row = middle_row + rng.uniform(-3, 3)
        column = 0.46 * right_end + rng.uniform(-4, 4)
        radius_y, radius_x = rng.uniform(0.085, 0.115) * size, rng.uniform(0.15, 0.2) * size
        angle = np.arctan2((self.rows - row) / radius_y, (self.columns - column) / radius_x)
        bumps = sum(rng.uniform(0, 0.09) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in (2, 3, 4, 5))
        distance = np.hypot((self.rows - row) / radius_y, (self.columns - column) / radius_x)
        return (distance < 1 + bumps) & (self.columns < right_end)

    def draw_water(self, shape, kind):
        color = np.array([52, 106, 168]) + self.rng.uniform(-16, 16, 3)
        ripples = 10 * np.sin(self.rows * self.rng.uniform(0.9, 1.3) + 3 * self.noise(10, stretch=3))
        glints = 16 * self.noise(2, stretch=4)
        self.paint(shape, color + (ripples + glints)[..., None], kind)

    def draw_beacon(self, middle_row, lamp_color):
        """A white tower with a lamp on top; returns where the lamp is."""
        size, rng = self.height, self.rng
        column = size - 1 - _FAR_COLUMNS / 2 + rng.uniform(-1, 1)
        row = middle_row + rng.uniform(-3, 3)
        lamp = np.hypot(self.columns - column, self.rows - (row - 6)) < _FAR_COLUMNS / 2 - 1.4
        tower = (abs(self.columns - column) < 3.4 + 0.1 * (self.rows - row)) & (self.rows > row - 5)
        tower &= self.rows < row + 14
        self.paint(tower, np.array([232, 230, 224]) + 8 * self.noise(2)[..., None], "beacon")
        self.paint(lamp, np.broadcast_to(np.array(lamp_color, np.float32), self.image.shape), "beacon")
        return lamp
