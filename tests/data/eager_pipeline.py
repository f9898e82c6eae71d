"""What the tensors of the input pipeline make of a dataset, without a graph."""

import numpy as np

from psanet_tf.data.pipeline import _Source
from psanet_tf.data.readers import list_examples


def pipeline_labels(data):
    """uint8 [N, h, w]: train ids of the validation images, which must all be of `data.crop_size`."""
    examples = list_examples(data, data.val_split)
    source = _Source(data, data.val_split, examples)
    unchanged = {"scale": 1.0, "angle_degrees": 0.0, "blur": False, "flip": False, "offset_yx": (0, 0)}
    crops = (source.crop(*source.decode(index), data.crop_size, unchanged) for index in range(len(examples)))
    return np.stack([label.numpy() for _, label in crops])
