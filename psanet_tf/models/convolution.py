"""Convolution, batch normalization and ReLU as the backbone and the heads put them together."""

from collections.abc import Callable
from typing import Any

from psanet_tf.keras_api import keras
from psanet_tf.layers import BatchNormalization, Conv2D
from psanet_tf.layers.initializers import backbone_kernel


class ConvolutionBuilder:
    """Adds convolutions and what follows them to a functional model; all share dtype and synchronization.

    Args:
        dtype: name of the dtype policy of every layer, e.g. ``"mixed_bfloat16"``.
        synchronized: batch statistics over all replicas.
    """

    def __init__(self, dtype: str, synchronized: bool) -> None:
        self.dtype = dtype
        self.synchronized = synchronized

    def conv(
        self,
        x: "keras.KerasTensor",
        filters: int,
        kernel_size: int,
        name: str,
        strides: int = 1,
        dilation: int = 1,
        use_bias: bool = False,
        initializer: Callable[[], keras.initializers.Initializer] = backbone_kernel,
    ) -> "keras.KerasTensor":
        """Convolution padded symmetrically, as PyTorch pads; TensorFlow's SAME differs where it strides."""
        if strides > 1 and kernel_size > 1:
            padding = dilation * (kernel_size - 1) // 2
            x = keras.layers.ZeroPadding2D(padding, data_format="channels_last", dtype=self.dtype, name=f"{name}_pad")(
                x
            )
        return Conv2D(
            filters,
            kernel_size,
            strides=strides,
            padding="valid" if strides > 1 else "same",
            dilation_rate=dilation,
            data_format="channels_last",
            use_bias=use_bias,
            kernel_initializer=initializer(),
            dtype=self.dtype,
            name=name,
        )(x)

    def norm(self, x: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
        return BatchNormalization(synchronized=self.synchronized, dtype=self.dtype, name=name)(x)

    def relu(self, x: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
        return keras.layers.ReLU(dtype=self.dtype, name=name)(x)

    def conv_norm_relu(
        self, x: "keras.KerasTensor", filters: int, kernel_size: int, prefix: str, index: int | str = "", **kwargs: Any
    ) -> "keras.KerasTensor":
        """`<prefix>_conv<index>`, `<prefix>_bn<index>`, `<prefix>_relu<index>`."""
        x = self.conv(x, filters, kernel_size, f"{prefix}_conv{index}", **kwargs)
        return self.relu(self.norm(x, f"{prefix}_bn{index}"), f"{prefix}_relu{index}")
