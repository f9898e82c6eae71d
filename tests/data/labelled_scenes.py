"""A small labelled scene, what sources of labels in every form are made of, and how they are written."""

import numpy as np
from PIL import Image

SIZE = (20, 30)
NAMES = ("background", "road", "car")
COLORS = np.array([(0, 0, 0), (128, 64, 128), (0, 0, 142)], np.uint8)
COUNT = 3


def truth(index):
    """uint8 [20, 30] of classes 0..2: a car on a road; what every form is made of."""
    label = np.zeros(SIZE, np.uint8)
    for value, box in enumerate(boxes(index), start=1):
        label[box[1] : box[3], box[0] : box[2]] = value
    return label


def boxes(index):
    """(left, top, right, bottom) of road and car."""
    return (2 + index, 8, 20, 16), (12, 10, 26 - index, 14)


def save(array, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)


def photo(index):
    """Noise that makes every image another one."""
    return np.random.default_rng(index).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


def palette_image(label, order=(0, 1, 2)):
    """A palette PNG in which class c has the index order[c]."""
    image = Image.fromarray(np.array(order, np.uint8)[label])
    colors = np.zeros((3, 3), np.uint8)
    colors[list(order)] = COLORS
    image.putpalette(colors.tobytes())
    return image
