"""How much memory training a network takes."""

import collections
import dataclasses
import math
from collections.abc import Iterable

import tensorflow as tf

from psanet_tf.feature_sizes import shrunk_size
from psanet_tf.keras_api import keras
from psanet_tf.layers import PSALayer
from psanet_tf.models import PSANet
from psanet_tf.models.resnet import block_of, is_end_of_block
from psanet_tf.ops.psa_attention import resolved_block_size


@dataclasses.dataclass(frozen=True)
class Memory:
    """Estimate for one replica, in bytes.

    Attributes:
        weights: of all variables of the model.
        gradients: of the trainable ones.
        optimizer: velocities, averages, accumulators.
        activations: what the backward pass needs of the forward pass.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(model: PSANet, batch_size: int, rematerialize: bool | None = None) -> Memory:
    """Sums up tensors by their shapes; kernels' workspaces and the input pipeline come on top.

    Args:
        model: PSANet of a fixed input size, compiled, its optimizer built.
        batch_size: images per replica.
        rematerialize: whether the insides of residual blocks are computed again; default: what the model does.

    Returns:
        Memory.
    """
    return Memory(
        weights=bytes_of(model.variables),
        gradients=bytes_of(model.trainable_variables),
        optimizer=bytes_of(model.optimizer.variables),
        activations=batch_size * _activations(model, model.rematerialize if rematerialize is None else rematerialize),
    )


def _activations(model, rematerialize):
    """Bytes per image that the forward pass leaves for the backward pass."""
    outputs = layer_outputs(model)
    if model.has_backbone or not rematerialize:  # a backbone is never computed again
        return sum(_kept_bytes(layer, output) for layer, output in outputs)
    kept = {layer.name: _kept_bytes(layer, output) for layer, output in outputs}
    # What is inside a residual block comes and goes: one of them counts, the largest.
    inside = collections.Counter()
    for name in list(kept):
        if (block := block_of(name)) and not is_end_of_block(name):
            inside[block] += kept.pop(name)
    return sum(kept.values()) + max(inside.values())


def layer_outputs(model: PSANet) -> list[tuple[keras.Operation, keras.KerasTensor]]:
    """(layer, what it gives) for each call of a layer in the network; of a backbone its layers, not itself."""
    pairs = [(layer, layer.output) for layer in model.layers if not isinstance(layer, keras.Model)]
    if model.has_backbone:
        # By depth: what Keras calls the nodes of a graph are their names.
        nodes = [node for nodes in model.get_layer("backbone")._nodes_by_depth.values() for node in nodes]
        pairs += [(node.operation, tensor) for node in nodes for tensor in node.outputs]
    return pairs


def _kept_bytes(layer, output):
    """Bytes per image that one output of a layer takes until the backward pass."""
    # Batch normalization's output is the same tensor as its ReLU's, as far as backpropagation needs it.
    if isinstance(layer, (keras.layers.BatchNormalization, keras.layers.InputLayer)):
        return 0
    size = tf.as_dtype(getattr(layer, "compute_dtype", output.dtype)).size
    kept = size * _elements(output.shape)
    return kept + (size * _psa_elements(layer) if isinstance(layer, PSALayer) else 0)


def _psa_elements(layer):
    """Elements inside a PSALayer: per direction, features before and after each normalization, and the attention."""
    _, height, width, _ = layer.input.shape
    branch = layer.collect or layer.distribute
    positions = height * width
    size = shrunk_size((height, width), layer.shrink_factor, layer.variant)
    shrunk = math.prod(size)
    per_direction = 2 * layer.mid_channels * positions + 4 * layer.mid_channels * shrunk
    if layer.compact or resolved_block_size(layer.block_size, size, branch.mask_size) is None:
        # The softmax is float32 whatever the policy: counted twice.
        per_direction += branch.mask_conv.filters * shrunk + 3 * shrunk * shrunk
    return len(layer.directions) * per_direction + 2 * positions * layer.input.shape[-1]


def bytes_of(variables: Iterable["keras.Variable"]) -> int:
    """Bytes that the values of Keras variables take, on one replica."""
    return sum(value.dtype.size * value.shape.num_elements() for value in (variable.value for variable in variables))


def _elements(shape):
    count = 1
    for length in shape[1:]:
        count *= length
    return count
