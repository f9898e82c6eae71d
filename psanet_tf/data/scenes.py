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

All other classes can be told from a few pixels around. The files are laid out as ADE20K's: JPEG in
``images/{training,validation}``, PNG in ``annotations/{training,validation}`` with 0 = no class and
value = train id + 1.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.data.catalog import dataset_info
from psanet_tf.files import atomic_folder
from psanet_tf.progress import track

MIN_DISTANCE = 80
MIN_SIZE = 161
KINDS = ("pond", "lake", "lagoon", "reservoir")
LAMP_COLORS = ((250, 215, 40), (225, 35, 45), (150, 60, 220), (40, 215, 235))

_JPEG_QUALITY = 95
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


def write_scenes(
    root: str | os.PathLike, train: int = 600, validation: int = 100, size: int = 161, seed: int = 0
) -> Path:
    """Writes the dataset; the folder appears whole or not at all.

    Args:
        root: the folder to make.
        train: number of training images.
        validation: number of validation images.
        size: rows and columns of an image, at least 161.
        seed: same seed, same images; an image does not depend on how many there are.

    Returns:
        Path of the folder.

    Raises:
        FileExistsError: `root` exists already.
        ValueError: too small a size, fewer than one image, a negative seed.
    """
    for name, count in (("train", train), ("validation", validation)):
        if count < 1:
            raise ValueError(f"{name}: needs at least one image, got {count}")
    with atomic_folder(root) as temporary:
        jobs = [("training", index) for index in range(train)]
        jobs += [("validation", index) for index in range(validation)]
        for split in ("training", "validation"):
            (temporary / "images" / split).mkdir(parents=True)
            (temporary / "annotations" / split).mkdir(parents=True)
        for split, index in track(jobs, "writing scenes"):
            scene = make_scene(seed, split, index, size)
            name = f"scene_{split}_{index:06d}"
            # No chroma subsampling: a lamp's colour must not spread over 16 pixels.
            Image.fromarray(scene.image).save(
                temporary / "images" / split / f"{name}.jpg", quality=_JPEG_QUALITY, subsampling=0
            )
            Image.fromarray(scene.label + np.uint8(1)).save(temporary / "annotations" / split / f"{name}.png")
    return Path(root)


def make_scene(seed: int, split: str, index: int, size: int = 161, kinds: tuple[int, int] | None = None) -> Scene:
    """Draws one image.

    Args:
        seed, split, index: which image; `split` is ``"training"`` or ``"validation"``.
        size: rows and columns, at least 161.
        kinds: index into `KINDS` for the upper and the lower water; drawn at random if None.

    Returns:
        Scene.
    """
    if size < MIN_SIZE:
        raise ValueError(f"size: lamps {MIN_DISTANCE} pixels away from waters need at least {MIN_SIZE}, got {size}")
    if seed < 0:
        raise ValueError(f"seed: must not be negative, got {seed}")
    key = [seed, ("training", "validation").index(split), index]
    scenery = np.random.default_rng([*key, 0])
    if kinds is None:
        kinds = tuple(int(kind) for kind in np.random.default_rng([*key, 1]).integers(0, len(KINDS), 2))
    canvas = _Canvas(size, scenery)
    horizon = canvas.draw_sky_and_mountains()
    canvas.draw_grass(horizon)
    canvas.draw_path(horizon)
    middle_rows = _water_rows(size)
    waters = [canvas.water_shape(row) for row in middle_rows]
    canvas.draw_trees(horizon, keep_free=waters[0] | waters[1])
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


class _Canvas:
    """An image being painted, waters on the left and beacons on the right."""

    def __init__(self, size, rng):
        self.size = size
        self.rng = rng
        self.image = np.zeros((size, size, 3), np.float32)
        self.label = np.zeros((size, size), np.uint8)
        self.rows, self.columns = np.mgrid[:size, :size].astype(np.float32)
        self.train_ids = {name: index for index, name in enumerate(dataset_info("scenes").class_names)}

    def draw_sky_and_mountains(self):
        size, rng = self.size, self.rng
        height = self.rows / (0.3 * size)
        top, bottom = np.array([90, 150, 225]), np.array([205, 225, 240])
        sky = top + (bottom - top) * np.clip(height, 0, 1)[..., None]
        clouds = np.clip(self._noise(18, stretch=3) - 0.15, 0, 1)[..., None]
        self._paint(np.ones((size, size), bool), sky + clouds * 110, "sky")
        horizon = rng.uniform(0.24, 0.28) * size
        ridge = horizon - 0.05 * size - 0.07 * size * (1 + self._wave(40, 3))
        rock = np.array([125, 115, 118]) + rng.uniform(-12, 12, 3)
        mountains = (self.rows > ridge) & (self.rows <= horizon)
        texture = 22 * self._noise(5)[..., None] + 14 * self._noise(2)[..., None]
        snow = np.clip(ridge + 0.03 * size - self.rows, 0, 3)[..., None] * 28
        self._paint(mountains, rock + texture + snow, "mountain")
        return horizon

    def draw_grass(self, horizon):
        color = np.array([96, 158, 62]) + self.rng.uniform(-14, 14, 3)
        depth = (self.rows / self.size)[..., None]
        texture = 16 * self._noise(9)[..., None] + 14 * self._noise(1.2)[..., None]
        self._paint(self.rows > horizon, color * (1.1 - 0.25 * depth) + texture, "grass")

    def draw_path(self, horizon):
        middle = self.size * (0.62 + 0.05 * self._wave(60, 2, along_rows=True)) + self.rng.uniform(-6, 6)
        half_width = 2.5 + 6.5 * (self.rows - horizon) / (self.size - horizon)
        path = (abs(self.columns - middle) < half_width) & (self.rows > horizon)
        sand = np.array([200, 172, 120]) + self.rng.uniform(-10, 10, 3)
        self._paint(path, sand + 12 * self._noise(1.5)[..., None], "path")

    def water_shape(self, middle_row):
        """An irregular ellipse at least `MIN_DISTANCE` away from the lamps."""
        size, rng = self.size, self.rng
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
        ripples = 10 * np.sin(self.rows * self.rng.uniform(0.9, 1.3) + 3 * self._noise(10, stretch=3))
        glints = 16 * self._noise(2, stretch=4)
        self._paint(shape, color + (ripples + glints)[..., None], kind)

    def draw_trees(self, horizon, keep_free):
        size, rng = self.size, self.rng
        outline, leaves = 0.25 * self._noise(3), 16 * self._noise(1.5)
        for row in np.sort(rng.uniform(horizon + 16, size - 2, rng.integers(7, 12))):
            radius = rng.uniform(0.8, 1.2) * (6 + 9 * (row - horizon) / size)
            column, crown_row = rng.uniform(0, size), row - 1.3 * radius
            box = np.s_[
                max(int(crown_row - 2 * radius), 0) : int(row) + 1,
                max(int(column - 2 * radius), 0) : int(column + 2 * radius) + 1,
            ]
            right, down = self.columns[box] - column, self.rows[box] - crown_row
            crown = np.hypot(right, down) < radius * (1 + outline[box])
            trunk = (abs(right) < radius * 0.2) & (down > 0) & (self.rows[box] < row)
            tree = np.zeros((size, size), bool)
            tree[box] = crown | trunk
            # No tree hides a water or stands among the beacons.
            if (tree & keep_free).any() or tree[:, size - _FAR_COLUMNS - 4 :].any():
                continue
            green = np.array([30, 92, 40]) + rng.uniform(-10, 10, 3)
            light = 22 * np.clip(-(down + right) / radius, -1, 1) + leaves[box]
            color = np.where((trunk & ~crown)[..., None], (96, 66, 42), green + light[..., None])
            self.image[tree] = color[tree[box]]
            self.label[tree] = self.train_ids["tree"]

    def draw_beacon(self, middle_row, lamp_color):
        """A white tower with a lamp on top; returns where the lamp is."""
        size, rng = self.size, self.rng
        column = size - 1 - _FAR_COLUMNS / 2 + rng.uniform(-1, 1)
        row = middle_row + rng.uniform(-3, 3)
        lamp = np.hypot(self.columns - column, self.rows - (row - 6)) < _FAR_COLUMNS / 2 - 1.4
        tower = (abs(self.columns - column) < 3.4 + 0.1 * (self.rows - row)) & (self.rows > row - 5)
        tower &= self.rows < row + 14
        self._paint(tower, np.array([232, 230, 224]) + 8 * self._noise(2)[..., None], "beacon")
        self._paint(lamp, np.broadcast_to(np.array(lamp_color, np.float32), self.image.shape), "beacon")
        return lamp

    def finished_image(self):
        grain = self.rng.normal(0, 3, self.image.shape)
        return np.clip(self.image + grain, 0, 255).round().astype(np.uint8)

    def _paint(self, where, color, class_name):
        self.image[where] = color[where]
        self.label[where] = self.train_ids[class_name]

    def _noise(self, cell, stretch=1):
        """Smooth noise in about -1..1 with details of `cell` rows and `cell * stretch` columns."""
        rows, columns = int(self.size / cell) + 2, int(self.size / (cell * stretch)) + 2
        coarse = Image.fromarray(self.rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
        return np.asarray(coarse.resize((self.size, self.size), Image.Resampling.BICUBIC))

    def _wave(self, wavelength, orders, along_rows=False):
        """A sum of sines over the columns (or rows) in -1..1."""
        place = self.rows if along_rows else self.columns
        waves = [
            np.sin(2 * np.pi * place * order / wavelength / 2 + self.rng.uniform(0, 2 * np.pi)) / order
            for order in range(1, orders + 1)
        ]
        return sum(waves) / sum(1 / order for order in range(1, orders + 1))
