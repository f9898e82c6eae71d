"""`Conv2D`: Keras's, in whichever form is the faster one."""

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.ops.convolution import products_serve, sum_of_products
from psanet_tf.ops.portable import traced_portably


@keras.saving.register_keras_serializable("psanet_tf")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` that on CPUs takes matrix products where they are faster (see `products_serve`).

    With one group per channel it is TensorFlow's depthwise convolution; Keras has XLA compile whatever has groups.

    Within `portable_operations` a dilated one is TensorFlow's operation itself; Keras puts it between others.

    Arguments, weights and results are Keras's, the latter but for rounding. Which form it is, is settled when the layer
    is called or traced. (Files of weights name a layer after its class: the name stays Keras's.)
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self._is_plain() and products_serve(inputs, kernel.shape):
            return sum_of_products(inputs, kernel)
        if traced_portably() and self._is_dilated():
            return _dilated(inputs, kernel, self.padding, self.dilation_rate)
        if self._is_depthwise(kernel):
            return tf.nn.depthwise_conv2d(
                inputs,
                tf.transpose(kernel, [0, 1, 3, 2]),
                [1, *self.strides, 1],
                self.padding.upper(),
                dilations=self.dilation_rate,
            )
        return super().convolution_op(inputs, kernel)

    def _is_plain(self):
        return (
            self.data_format == "channels_last"
            and self.padding == "same"
            and self.groups == 1
            and tuple(self.strides) == tuple(self.dilation_rate) == (1, 1)
        )

    def _is_dilated(self):
        return self.data_format == "channels_last" and self.groups == 1 and max(self.dilation_rate) > 1

    def _is_depthwise(self, kernel):
        return (
            self.data_format == "channels_last"
            and self.groups == self.filters > 1 == kernel.shape[2]
            and self.strides[0] == self.strides[1]
            and 1 in (self.strides[0], max(self.dilation_rate))
        )


def _dilated(inputs, kernel, padding, dilations):
    """One operation, where TensorFlow's functions make three of a dilated convolution."""
    if padding == "same" and not inputs.shape[1:3].is_fully_defined():
        # ONNX Runtime refuses dilated ones that find out their padding when they run.
        around = [dilation * (length - 1) for dilation, length in zip(dilations, kernel.shape[:2], strict=True)]
        inputs = tf.pad(inputs, [[0, 0], *([total // 2, total - total // 2] for total in around), [0, 0]])
        padding = "valid"
    return tf.nn.conv2d(inputs, kernel, 1, padding.upper(), dilations=dilations)
