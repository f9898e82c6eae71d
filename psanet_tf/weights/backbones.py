"""Backbones of other projects under the names and in the layouts of the original implementation's state dict."""

import os
import re
from collections.abc import Sequence

import numpy as np

from psanet_tf.data.normalization import MEAN, STD
from psanet_tf.keras_api import keras
from psanet_tf.models.resnet import BLOCKS

CAFFE_MEAN = np.array([103.939, 116.779, 123.68], np.float32)
"""What keras.applications subtracts from the pixels of its ResNets, in the order blue, green, red."""

_KERAS_EPSILON, _EPSILON = 1.001e-5, 1e-5


def from_keras_applications(network: keras.Model, mean: np.ndarray = CAFFE_MEAN) -> dict[str, np.ndarray]:
    """The weights of a `keras.applications` ResNet (version 1) for images normalized as this project does.

    Its convolutions have biases and its batch normalizations an epsilon of 1.001e-5; both are folded into the
    moving statistics, exactly in inference. Its images are blue-green-red with only a mean subtracted; order, scale
    and the difference of the means are folded into the first convolution, exactly but for the padded border, where
    zero means another colour (less than half a grey level away).

    Args:
        network: keras.Model, `keras.applications.ResNet50`, `ResNet101` or `ResNet152`.
        mean: what the network expects to be subtracted from blue, green and red.

    Returns:
        {name: array}, for a PSANet with ``stem="classic"`` and ``stride_in_1x1=True``.

    Raises:
        ValueError: not such a network.
    """
    state = {}
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            conv, norm = _names_of(layer.name)
            kernel, bias = (np.asarray(weight) for weight in layer.get_weights())
            if layer.name == "conv1_conv":
                kernel, bias = _fold_preprocessing(kernel, bias, mean)
            gamma, beta, moving_mean, moving_variance = network.get_layer(
                layer.name.removesuffix("conv") + "bn"
            ).get_weights()
            state[f"{conv}.weight"] = np.transpose(kernel, (3, 2, 0, 1))
            state[f"{norm}.weight"] = gamma
            state[f"{norm}.bias"] = beta
            state[f"{norm}.running_mean"] = moving_mean - bias
            state[f"{norm}.running_var"] = moving_variance + np.float32(_KERAS_EPSILON - _EPSILON)
    return state


def read_keras_applications(path: str | os.PathLike, blocks: Sequence[int]) -> dict[str, np.ndarray]:
    """Reads a weights file of a `keras.applications` ResNet, with or without its classifier.

    Args:
        path: ``.h5`` as keras.applications downloads it, or ``.weights.h5`` as Keras writes it.
        blocks: bottleneck blocks per stage, which tell the depth.

    Returns:
        {name: array}, see `from_keras_applications`.

    Raises:
        ValueError: `blocks` of no such network, or a file that fits none.
    """
    depth = next((depth for depth, count in BLOCKS.items() if count == tuple(blocks)), None)
    if depth is None:
        raise ValueError(f"{path}: keras.applications has no ResNet with {list(blocks)} blocks per stage")
    network = getattr(keras.applications, f"ResNet{depth}")(weights=None, include_top=False)
    problems = []
    for complete in (lambda network: network, _with_classifier):
        try:
            complete(network).load_weights(path)
        except (ValueError, OSError, KeyError) as error:
            problems.append(str(error).splitlines()[0])
        else:
            return from_keras_applications(network)
    raise ValueError(f"{path} holds no weights of keras.applications.ResNet{depth}: {problems[0]}")


def _with_classifier(network):
    """The network with ``include_top=True``, around the same layers."""
    features = keras.layers.GlobalAveragePooling2D(name="avg_pool")(network.output)
    return keras.Model(network.input, keras.layers.Dense(1000, name="predictions")(features))


def _names_of(layer_name):
    """Names of the original's modules for a convolution and its batch normalization."""
    if layer_name == "conv1_conv":
        return "layer0.0", "layer0.1"
    match = re.fullmatch(r"conv(\d)_block(\d+)_(\d)_conv", layer_name)
    if match is None:
        raise ValueError(f"not a ResNet (version 1) of keras.applications: it has a layer {layer_name!r}")
    stage, block, part = (int(number) for number in match.groups())
    prefix = f"layer{stage - 1}.{block - 1}"
    return (
        (f"{prefix}.downsample.0", f"{prefix}.downsample.1")
        if part == 0
        else (f"{prefix}.conv{part}", f"{prefix}.bn{part}")
    )


def _fold_preprocessing(kernel, bias, mean):
    """Kernel [7, 7, 3, C] and bias for (rgb - MEAN) / STD in place of bgr - mean."""
    offset = MEAN[::-1] - mean
    bias = bias + np.einsum("hwio,i->o", kernel, offset)
    return kernel[:, :, ::-1] * STD[:, None], bias
