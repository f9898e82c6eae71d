"""The functions that an exported model answers with."""

import functools
import json
import os
from collections.abc import Callable

import tensorflow as tf

from psanet_tf.data.decoding import decode_image
from psanet_tf.export.folding import ParameterPool, fold_batch_norm
from psanet_tf.export.graph.attention import GraphAttention
from psanet_tf.export.graph.checking import check_request
from psanet_tf.export.graph.protocols import build_graph_labeler, pads_images
from psanet_tf.export.graph.whole import check_seen, pad_to_stride
from psanet_tf.inference.attention import attention_grid
from psanet_tf.keras_api import keras
from psanet_tf.models import PSANet
from psanet_tf.ops.convolution import stock_convolutions
from psanet_tf.ops.psa_attention import auto_blocks_for
from psanet_tf.runtimes.metadata import ModelMetadata
from psanet_tf.weights.calibration import tempered


class ServingModule(tf.Module):
    """A network's parameters, stored once, and a `tf.function` for each signature.

    ============== ============================================ ===============================================
    signature      inputs                                       outputs
    ============== ============================================ ===============================================
    serving_default images uint8 [B, H, W, C]                   labels uint8 [B, H, W], scores uint8 [B, H, W]
    probabilities  images uint8 [B, H, W, C]                    probabilities float32 [B, H, W, K]
    predict_bytes  image_bytes string [B], image files          label_bytes string [B], PNG of the image's size
    attention      image_bytes string [B],                      collect, distribute float32 [B, P, h, w],
                   points float32 [B, P, 2] (x, y in pixels)    image_box float32 [B, 4] (see `GraphAttention`)
    metadata       keys string [B]                              values string [B], JSON
    ============== ============================================ ===============================================

    B is any number. H, W are the network's input size, C its channels; images are of the metadata's dtype, uint8 for
    photographs. Image files are JPEG or PNG for those, for others PNG or ``.npy`` (see `decode_stored`). scores are the
    probability of the label times 255, rounded. `attention` is there if the network has the module, with the directions
    that it has.

    For a network that takes any size, images in one request to `attention` need equal sizes. `predict_bytes` labels as
    the metadata says. How many images, pixels and points a request may have, the metadata say too
    (`psanet_tf.runtimes.limits`); more is refused before there is any work.

    Args:
        network: `PSANet`.
        metadata: `ModelMetadata`.
        metadata_asset: path of the file that holds it, to be copied into the SavedModel.
        pixels_only: without `predict_bytes` and `attention`, which take files.
    """

    def __init__(
        self,
        network: PSANet,
        metadata: ModelMetadata,
        metadata_asset: str | os.PathLike,
        pixels_only: bool = False,
    ) -> None:
        super().__init__(name="psanet_serving")
        self._metadata = metadata
        self._input_size = metadata.input_size
        self._padded = pads_images(network)
        self._images = metadata.images
        shape = [None, *(self._input_size or (None, None)), metadata.channels]
        self._image_spec = tf.TensorSpec(shape, tf.float32, name="images")
        pool = ParameterPool()
        inference = network.inference()
        self._logits = self._folded(
            lambda images: {"logits": tempered(inference(images, training=False), metadata.temperature)}, pool
        )
        self._labeler = self._attention = None
        if not pixels_only:
            self._labeler = build_graph_labeler(lambda images: self._logits(images)["logits"], network, metadata)
        if metadata.directions and not pixels_only:
            layer = network.get_layer("psa")
            features = keras.Model(network.inputs[0], layer.input)

            def attention(images):
                seen = features(images, training=False)
                return {**layer.attention(seen), "feature_size": tf.shape(seen)[1:3]}

            matrices = self._folded(attention, pool)
            grid = functools.partial(attention_grid, network)
            self._attention = GraphAttention(matrices, self._input_size, grid, self._images)
        self.parameters = list(pool.values())
        self.metadata_asset = tf.saved_model.Asset(str(metadata_asset))

    def _folded(self, function, pool):
        """`function` of images as one `tf.function`, so that its graph is in the file once for all signatures."""
        trace = tf.function(function, [self._image_spec], autograph=False)
        # The machine that serves is another one.
        with stock_convolutions(), auto_blocks_for(self._metadata.device):
            concrete = trace.get_concrete_function()
        graph = fold_batch_norm(concrete, pool, products=self._metadata.device == "cpu")
        return tf.function(lambda images: graph(images, pool.read), [self._image_spec], autograph=False)

    def signatures(self) -> dict[str, Callable]:
        """Signature name -> `tf.function` with its input signature, for `tf.saved_model.save`."""
        images = tf.TensorSpec(self._image_spec.shape, self._metadata.dtype, name="images")
        image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
        points = tf.TensorSpec([None, None, 2], tf.float32, name="points")
        keys = tf.TensorSpec([None], tf.string, name="keys")
        arguments = {
            "serving_default": (self.label_images, [images]),
            "probabilities": (self.probabilities, [images]),
            "metadata": (self.metadata_values, [keys]),
        }
        if self._labeler is not None:
            arguments["predict_bytes"] = (self.predict_bytes, [image_bytes])
        if self._attention is not None:
            arguments["attention"] = (self.attention, [image_bytes, points])
        return {name: tf.function(*argument, autograph=False) for name, argument in arguments.items()}

    def label_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self._image_logits(images, self._metadata.max_label_pixels)
        largest = tf.reduce_max(logits, axis=-1)
        # The softmax of the largest logit, without the other classes' divisions.
        scores = 1 / tf.reduce_sum(tf.exp(logits - largest[..., None]), axis=-1)
        return {
            "labels": tf.cast(tf.argmax(logits, -1, tf.int32), tf.uint8),
            "scores": tf.cast(tf.round(scores * 255), tf.uint8),
        }

    def probabilities(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self._image_logits(images, self._metadata.max_probability_pixels)
        return {"probabilities": tf.nn.softmax(logits)}

    def predict_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        image_bytes = self._checked(image_bytes)

        def label(index):
            return tf.io.encode_png(self._labeler.labels(self._image(image_bytes, index))[..., None])

        return {"label_bytes": _map_images(label, image_bytes, tf.TensorSpec([], tf.string))}

    def attention(self, image_bytes: tf.Tensor, points: tf.Tensor) -> dict[str, tf.Tensor]:
        same = tf.debugging.Assert(
            tf.equal(tf.shape(points)[0], tf.size(image_bytes)),
            ["points must have a list of points for each of image_bytes"],
        )
        count, limit = tf.size(points) // 2, self._metadata.max_points
        message = f"points has {{}} points of all images together, a request may have {limit}"
        few = tf.debugging.Assert(count <= limit, [tf.strings.format(message, count)])
        with tf.control_dependencies([same, few]):
            image_bytes = self._checked(image_bytes)

        def maps(index):
            name = tf.strings.format("points[{}]", index)
            return self._attention.maps(self._image(image_bytes, index), points[index], name)

        specs = {name: tf.TensorSpec([None, None, None]) for name in self._metadata.directions}
        return _map_images(maps, image_bytes, {**specs, "image_box": tf.TensorSpec([4])})

    def metadata_values(self, keys: tf.Tensor) -> dict[str, tf.Tensor]:
        """The JSON of metadata fields; the key "all" stands for the object of all fields."""
        fields = json.loads(self._metadata.to_json())
        table = {"all": fields, **fields}
        names = tf.constant(list(table))
        texts = tf.constant([json.dumps(value) for value in table.values()])
        found = keys[:, None] == names[None]
        known = tf.debugging.Assert(
            tf.reduce_all(tf.reduce_any(found, axis=1)), [f"keys must be among: {', '.join(table)}"]
        )
        with tf.control_dependencies([known]):
            return {"values": tf.gather(texts, tf.argmax(tf.cast(found, tf.int32), axis=1))}

    def _checked(self, image_bytes):
        metadata = self._metadata
        return check_request(image_bytes, metadata.max_images, metadata.max_pixels, self._images)

    def _image(self, image_bytes, index):
        return decode_image(image_bytes[index], tf.strings.format("image_bytes[{}]", index), self._images)

    def _image_logits(self, images, max_pixels):
        size = tf.shape(images)
        pixels = tf.reduce_prod(tf.cast(size[:3], tf.int64))
        text = tf.strings.format("images have {} x {} x {}", tuple(tf.unstack(size[:3])))
        message = tf.strings.join([text, f" pixels, a request to this signature may have {max_pixels} of all images"])
        limits = [tf.debugging.Assert(pixels <= max_pixels, [message])]
        if self._input_size is None:
            limits.append(check_seen(size[1:3], self._padded, self._metadata.max_seen_pixels))
        with tf.control_dependencies(limits):
            images = tf.identity(images)
        inputs = self._images.normalize(images)
        if self._input_size is not None or not self._padded:
            return self._logits(inputs)["logits"]
        padded = self._logits(pad_to_stride(inputs))["logits"]
        return padded[:, : tf.shape(images)[1], : tf.shape(images)[2]]


def _map_images(function, strings, output_spec):
    """`function(index)` for every string, one image after the other: each may be large."""
    return tf.map_fn(function, tf.range(tf.size(strings)), fn_output_signature=output_spec, parallel_iterations=1)
