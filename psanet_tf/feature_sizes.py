"""Sizes of the network's feature maps, for whoever needs them without a network."""

OUTPUT_STRIDE = 8
"""Of the networks of the paper; `PSANet` takes others."""


def feature_size(input_size: tuple[int, int], output_stride: int = OUTPUT_STRIDE) -> tuple[int, int]:
    """(rows, columns) of the ResNet's features of an input of (rows, columns) pixels: one for every eighth pixel."""
    height, width = ((length - 1) // output_stride + 1 for length in input_size)
    return height, width


def shrunk_size(features: tuple[int, int], shrink_factor: int, variant: str = "semseg") -> tuple[int, int]:
    """(rows, columns) at which the attention module works on features of (rows, columns); see `PSALayer`."""
    if shrink_factor == 1:
        height, width = features
    elif variant == "mmseg" and any(length % 2 == 0 for length in features):
        height, width = (max(length // shrink_factor, 1) for length in features)
    else:
        height, width = ((length - 1) // shrink_factor + 1 for length in features)
    return height, width
