"""Backbones whose strides have become dilations: the same numbers on a finer grid, from the same weights."""

import numpy as np
import pytest

from psanet_tf.keras_api import LEGACY_KERAS, keras

if LEGACY_KERAS:
    pytest.skip("graphs are rewritten under Keras 3 alone", allow_module_level=True)

from small_backbones import FAMILIES, shared_backbone

from psanet_tf.models.dilation import dilated_features


class SampledPooling(keras.layers.GlobalAveragePooling2D):
    """A global pooling over the positions that the backbone has at its own strides."""

    own_size = None

    def call(self, inputs):
        if self.own_size is not None and inputs.shape[1] > self.own_size:
            step = (inputs.shape[1] - 1) // max(self.own_size - 1, 1)
            inputs = inputs[:, ::step, ::step][:, : self.own_size, : self.own_size]
        return super().call(inputs)


def both(backbone, output_stride):
    """[(feature, the backbone's own values, the rewritten one's)] of an image, for all layers with a finer grid."""
    own = {}

    def replaced(layer):
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            return SampledPooling(keepdims=layer.keepdims, name=layer.name)
        return layer

    def noted(layer, *args, **kwargs):
        if isinstance(layer, SampledPooling):
            layer.own_size = args[0].shape[1]
        own[layer.name] = layer(*args, **kwargs)
        return own[layer.name]

    model = keras.models.clone_model(backbone, clone_function=replaced, call_function=noted)
    images = keras.Input(model.input_shape[1:])
    features = dilated_features(model, images, output_stride)
    features = [feature for feature in features if feature.name in own and feature.grid.dilation > 1]
    image = np.random.default_rng(1).normal(size=(1, *images.shape[1:])).astype("float32")
    rewritten = keras.Model(images, [feature.tensor for feature in features])(image, training=False)
    original = keras.Model(model.inputs, [own[feature.name] for feature in features])(image, training=False)
    return list(zip(features, map(np.asarray, original), map(np.asarray, rewritten), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_sampled_at_its_own_stride_gives_what_it_gave(family):
    compared = both(shared_backbone(family), 8)
    assert {feature.grid.own_stride for feature, _, _ in compared} == {16, 32}
    for feature, original, rewritten in compared:
        step = feature.grid.dilation
        sampled = rewritten[:, ::step, ::step][:, : original.shape[1], : original.shape[2]]
        # All positions of the backbone are there, and its borders are borders here.
        assert sampled.shape == original.shape, feature
        scale = abs(original).max()
        assert scale > 1e-3 and abs(sampled - original).max() < 2e-5 * scale, feature
        assert feature.grid.stride == 8
    assert rewritten.std(axis=(1, 2)).max() > 1e-3  # positions differ
