"""An image being painted with its labels: landscape, trees, noise; what the synthetic scenes have in common."""

from collections.abc import Sequence

import numpy as np
from PIL import Image


class SceneCanvas:
    """Image and labels while they are painted.

    Args:
        height, width: rows and columns.
        rng: of everything that is drawn at random.
        class_names: by train id.

    Attributes:
        image: float32 [height, width, 3], RGB.
        label: uint8 [height, width], train ids.
        rows, columns: float32 [height, width], the place of every pixel.
    """

    def __init__(self, height: int, width: int, rng: np.random.Generator, class_names: Sequence[str]) -> None:
        self.height = height
        self.width = width
        self.rng = rng
        self.image = np.zeros((height, width, 3), np.float32)
        self.label = np.zeros((height, width), np.uint8)
        self.rows, self.columns = np.mgrid[:height, :width].astype(np.float32)
        self.train_ids = {name: index for index, name in enumerate(class_names)}

    def draw_sky_and_mountains(self, horizon: float = 0.24, mountains: float = 1.0) -> float:
        """Returns the row of the horizon, `horizon` of the height or a little below it; `mountains` is their height,
        1 for about an eighth of the image.
        """
        size, rng = self.height, self.rng
        height = self.rows / (0.3 * size)
        top, bottom = np.array([90, 150, 225]), np.array([205, 225, 240])
        sky = top + (bottom - top) * np.clip(height, 0, 1)[..., None]
        clouds = np.clip(self.noise(18, stretch=3) - 0.15, 0, 1)[..., None]
        self.paint(np.ones(self.label.shape, bool), sky + clouds * 110, "sky")
        horizon = rng.uniform(horizon, horizon + 0.04) * size
        ridge = horizon - mountains * 0.05 * size - mountains * 0.07 * size * (1 + self.wave(40, 3))
        rock = np.array([125, 115, 118]) + rng.uniform(-12, 12, 3)
        mountains = (self.rows > ridge) & (self.rows <= horizon)
        texture = 22 * self.noise(5)[..., None] + 14 * self.noise(2)[..., None]
        snow = np.clip(ridge + 0.03 * size - self.rows, 0, 3)[..., None] * 28
        self.paint(mountains, rock + texture + snow, "mountain")
        return horizon

    def draw_grass(self, horizon: float) -> None:
        color = np.array([96, 158, 62]) + self.rng.uniform(-14, 14, 3)
        depth = (self.rows / self.height)[..., None]
        texture = 16 * self.noise(9)[..., None] + 14 * self.noise(1.2)[..., None]
        self.paint(self.rows > horizon, color * (1.1 - 0.25 * depth) + texture, "grass")

    def draw_trees(self, horizon: float, keep_free: np.ndarray) -> None:
        """Trees, none of which touches a pixel of `keep_free`, bool [height, width]."""
        height, width, rng = self.height, self.width, self.rng
        outline, leaves = 0.25 * self.noise(3), 16 * self.noise(1.5)
        for row in np.sort(rng.uniform(horizon + 16, height - 2, rng.integers(7, 12))):
            radius = rng.uniform(0.8, 1.2) * (6 + 9 * (row - horizon) / height)
            column, crown_row = rng.uniform(0, width), row - 1.3 * radius
            box = np.s_[
                max(int(crown_row - 2 * radius), 0) : int(row) + 1,
                max(int(column - 2 * radius), 0) : int(column + 2 * radius) + 1,
            ]
            right, down = self.columns[box] - column, self.rows[box] - crown_row
            crown = np.hypot(right, down) < radius * (1 + outline[box])
            trunk = (abs(right) < radius * 0.2) & (down > 0) & (self.rows[box] < row)
            tree = np.zeros(self.label.shape, bool)
            tree[box] = crown | trunk
            if (tree & keep_free).any():
                continue
            green = np.array([30, 92, 40]) + rng.uniform(-10, 10, 3)
            light = 22 * np.clip(-(down + right) / radius, -1, 1) + leaves[box]
            color = np.where((trunk & ~crown)[..., None], (96, 66, 42), green + light[..., None])
            self.image[tree] = color[tree[box]]
            self.label[tree] = self.train_ids["tree"]

    def finished_image(self) -> np.ndarray:
        """uint8 [height, width, 3], with the grain of a film."""
        grain = self.rng.normal(0, 3, self.image.shape)
        return np.clip(self.image + grain, 0, 255).round().astype(np.uint8)

    def paint(self, where: np.ndarray, color: np.ndarray, class_name: str) -> None:
        """Colour, [height, width, 3], and class of the pixels `where`, bool [height, width]."""
        self.image[where] = color[where]
        self.label[where] = self.train_ids[class_name]

    def noise(self, cell: float, stretch: float = 1) -> np.ndarray:
        """Smooth noise in about -1..1 with details of `cell` rows and `cell * stretch` columns."""
        rows, columns = int(self.height / cell) + 2, int(self.width / (cell * stretch)) + 2
        coarse = Image.fromarray(self.rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
        return np.asarray(coarse.resize((self.width, self.height), Image.Resampling.BICUBIC))

    def wave(self, wavelength: float, orders: int, along_rows: bool = False) -> np.ndarray:
        """A sum of sines over the columns (or rows) in -1..1."""
        place = self.rows if along_rows else self.columns
        waves = [
            np.sin(2 * np.pi * place * order / wavelength / 2 + self.rng.uniform(0, 2 * np.pi)) / order
            for order in range(1, orders + 1)
        ]
        return sum(waves) / sum(1 / order for order in range(1, orders + 1))
