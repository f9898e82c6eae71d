"""Convolutions of a graph as the sums of matrix products that are faster on CPUs."""

import tensorflow as tf

from psanet_tf.ops.convolution import has_product_form, sum_of_row_products


class ProductForm:
    """Makes nodes that call `sum_of_row_products`, and the functions that they call.

    Attributes:
        functions: (dtype, kernel's shape) -> `ConcreteFunction`.
    """

    def __init__(self) -> None:
        self.functions: dict[tuple, tf.types.experimental.ConcreteFunction] = {}

    @staticmethod
    def fits(conv: tf.compat.v1.NodeDef, dtype: tf.DType, kernel_shape: tf.TensorShape) -> bool:
        """Whether it can and should take the place of a node."""
        steps = (*conv.attr["strides"].list.i, *(conv.attr["dilations"].list.i or [1]))
        plain = conv.attr["padding"].s == b"SAME" and conv.attr["data_format"].s in (b"NHWC", b"") and set(steps) == {1}
        return plain and has_product_form(dtype, kernel_shape)

    def node(
        self,
        conv: tf.compat.v1.NodeDef,
        dtype: tf.DType,
        kernel_shape: tf.TensorShape,
        output_shape: tf.TensorShape,
    ) -> tf.compat.v1.NodeDef:
        """A node in the place of `conv`, whose second input is the kernel's rows."""
        name = self._function(dtype, kernel_shape).function_def.signature.name
        node = tf.compat.v1.NodeDef(name=conv.name, op="PartitionedCall", input=conv.input, device=conv.device)
        node.attr["f"].func.name = name
        node.attr["Tin"].list.type.extend([dtype.as_datatype_enum] * 2)
        node.attr["Tout"].list.type.append(dtype.as_datatype_enum)
        # Nothing else would say so to the nodes that follow.
        node.attr["_output_shapes"].list.shape.append(output_shape.as_proto())
        return node

    def _function(self, dtype, kernel_shape):
        key = (dtype, tuple(kernel_shape))
        if key not in self.functions:
            _, _, channels, filters = kernel_shape
            specs = [
                tf.TensorSpec([None, None, None, channels], dtype),
                tf.TensorSpec([3, channels, 3 * filters], dtype),
            ]
            trace = tf.function(sum_of_row_products, specs, autograph=False)
            self.functions[key] = trace.get_concrete_function()
        return self.functions[key]
