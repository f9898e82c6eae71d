"""A traced network as a graph whose batch normalizations are folded into the convolutions before them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from psanet_tf.export.product_form import ProductForm
from psanet_tf.ops.convolution import kernel_rows

_PASSES_VALUE_ON = ("Identity", "Cast", "ReadVariableOp")


@dataclass(frozen=True)
class FoldedGraph:
    """A network's graph with its parameters outside.

    Attributes:
        graph_def: the nodes; parameters are looked up by tensor name when it is called.
        input_name: tensor name of the images.
        output_names: output name -> tensor name.
        parameters: tensor name -> key into the `ParameterPool` that the graph was folded with.
        functions: what the nodes call; TensorFlow forgets functions that nobody holds.
    """

    graph_def: tf.compat.v1.GraphDef
    input_name: str
    output_names: dict[str, str]
    parameters: dict[str, tuple]
    functions: tuple[tf.types.experimental.ConcreteFunction, ...] = ()

    def __call__(self, images: tf.Tensor, parameter: Callable[[tuple], tf.Tensor]) -> dict[str, tf.Tensor]:
        """The outputs (name -> tensor) for `images`; call it while a graph is made.

        Args:
            images: the network's input.
            parameter: key into the pool -> the parameter's value in that graph, e.g. `ParameterPool.read`.
        """
        input_map = {name: parameter(key) for name, key in self.parameters.items()}
        input_map[self.input_name] = images
        names = list(self.output_names)
        tensors = tf.graph_util.import_graph_def(
            self.graph_def,
            input_map=input_map,
            return_elements=[self.output_names[name] for name in names],
            name="network",
        )
        return dict(zip(names, tensors, strict=True))


class ParameterPool(dict):
    """Key -> `tf.Variable`; graphs that use the same weights share one variable."""

    def add(self, key: tuple, dtype: tf.DType, value: Callable[[], np.ndarray]) -> tuple:
        if key not in self:
            name = "/".join(str(part) for part in key[:2]).replace(":", "_")
            self[key] = tf.Variable(tf.cast(value(), dtype), trainable=False, name=name)
        return key

    def read(self, key: tuple) -> tf.Tensor:
        return self[key].read_value()


def fold_batch_norm(
    concrete: tf.types.experimental.ConcreteFunction,
    pool: ParameterPool,
    products: bool = False,
    dilate: bool = False,
) -> FoldedGraph:
    """Takes a network's trace apart into nodes and parameters; folds where a normalization follows a convolution.

    In inference mode batch normalization is a product and a sum per channel, and a convolution is linear::

        (conv(x, k) - mean) / sqrt(variance + epsilon) * gamma + beta = conv(x, k * s) + (beta - mean * s)

    with s = gamma / sqrt(variance + epsilon), computed in float64.

    Args:
        concrete: a `ConcreteFunction` of one tensor that returns a dict of tensors; its variables' values are
            read now.
        pool: the `ParameterPool` that takes the parameters, in the dtype in which the graph uses them (a
            bfloat16 network has bfloat16 ones).
        products: convolutions before a normalization become the sums of products that are faster on CPUs, where
            `has_product_form` says so.
        dilate: convolutions before a normalization that stand between a space-to-batch and a batch-to-space become
            dilated ones, as those in bfloat16 do always.

    Returns:
        FoldedGraph.
    """
    reader = _TraceReader(concrete)
    nodes = {node.name: node for node in reader.graph_def.node}
    parameters, replaced = {}, {}
    by_products = ProductForm() if products else None
    for node in reader.graph_def.node:
        folded = _fold(node, nodes, reader, pool, by_products, dilate)
        if folded is not None:
            new_nodes, new_parameters = folded
            replaced.update(new_nodes)
            parameters.update(new_parameters)
    graph_def = tf.compat.v1.GraphDef(versions=reader.graph_def.versions, library=reader.graph_def.library)
    for node in reader.graph_def.node:
        graph_def.node.append(replaced.get(node.name, node))
    output_names = {name: tensor.name for name, tensor in concrete.structured_outputs.items()}
    graph_def = reachable(graph_def, [name.split(":")[0] for name in output_names.values()])
    graph_def = _take_parameters_out(graph_def, reader, pool, parameters)
    functions = tuple(by_products.functions.values()) if by_products is not None else ()
    graph_def.library.function.extend(function.function_def for function in functions)
    return FoldedGraph(graph_def, concrete.inputs[0].name, output_names, parameters, functions)


class _TraceReader:
    """Finds the variable behind a node of a trace."""

    def __init__(self, concrete):
        self.graph_def = concrete.graph.as_graph_def()
        self._graph = concrete.graph
        self._nodes = {node.name: node for node in self.graph_def.node}
        by_handle = {id(variable.handle): variable for variable in concrete.graph.variables}
        self._variables = {
            placeholder.op.name: by_handle[id(handle)]
            for handle, placeholder in concrete.graph.captures
            if id(handle) in by_handle
        }

    def variable(self, name):
        """The variable whose value the node passes on, or None."""
        node = self._nodes.get(_node_name(name))
        while node is not None and node.op in _PASSES_VALUE_ON:
            source = _node_name(node.input[0])
            if source in self._variables:
                return self._variables[source]
            node = self._nodes.get(source)
        return None

    def shape(self, name):
        """Static shape of the node's output."""
        return self._graph.get_tensor_by_name(f"{_node_name(name)}:0").shape

    def dtype(self, name):
        node = self._nodes[_node_name(name)]
        attribute = {"Cast": "DstT", "ReadVariableOp": "dtype", "Identity": "T"}[node.op]
        return tf.as_dtype(node.attr[attribute].type)


def _fold(norm, nodes, reader, pool, by_products, dilate):
    """({name: node that takes its place}, {tensor name: key}) or None where there is nothing to fold."""
    if norm.op != "FusedBatchNormV3" or norm.attr["is_training"].b:
        return None
    chain = _convolution_before(norm, nodes)
    if chain is None:
        return None
    conv = chain[-1]
    kernel, *statistics = (reader.variable(name) for name in (conv.input[1], *norm.input[1:]))
    if any(variable is None for variable in (kernel, *statistics)):
        return None
    epsilon = norm.attr["epsilon"].f
    gamma, beta, mean, variance = statistics
    dtype = reader.dtype(conv.input[1])

    def scale():
        return _wide(gamma) / np.sqrt(_wide(variance) + epsilon)

    source = tuple(id(variable) for variable in (kernel, *statistics))
    as_products = by_products is not None and len(chain) == 1 and by_products.fits(conv, dtype, kernel.shape)

    def folded_kernel():
        folded = _wide(kernel) * scale()
        return kernel_rows(tf.constant(folded)) if as_products else folded

    kind = "folded_kernel_rows" if as_products else "folded_kernel"
    kernel_key = pool.add((_path(kernel), kind, dtype, source), dtype, folded_kernel)
    bias_key = pool.add(
        (_path(kernel), "folded_bias", dtype, source), dtype, lambda: _wide(beta) - _wide(mean) * scale()
    )
    if as_products:
        new_conv = by_products.node(conv, dtype, kernel.shape, reader.shape(conv.name))
    else:
        new_conv = tf.compat.v1.NodeDef()
        new_conv.CopyFrom(conv)
    new_conv.input[1] = f"{norm.name}/folded_kernel"
    bias_add = tf.compat.v1.NodeDef(
        name=norm.name, op="BiasAdd", input=[chain[0].name, f"{norm.name}/folded_bias"], device=norm.device
    )
    bias_add.attr["T"].CopyFrom(conv.attr["T"])
    bias_add.attr["data_format"].CopyFrom(conv.attr["data_format"])
    if len(chain) == 2 and (dilate or dtype == tf.bfloat16) and _dilate(new_conv, chain[0], nodes):
        bias_add.input[0] = conv.name
    parameters = {f"{norm.name}/folded_kernel:0": kernel_key, f"{norm.name}/folded_bias:0": bias_key}
    return {conv.name: new_conv, norm.name: bias_add}, parameters


def _convolution_before(norm, nodes):
    """[convolution] or [batch-to-space, convolution], the latter of a dilated one; None for anything else."""
    chain = [nodes.get(_node_name(norm.input[0]))]
    if chain[0] is not None and chain[0].op == "BatchToSpaceND":
        chain.append(nodes.get(_node_name(chain[0].input[0])))
    if chain[-1] is None or chain[-1].op != "Conv2D":
        return None
    for node in chain:
        if sum(node.name in map(_node_name, other.input) for other in nodes.values()) > 1:
            return None  # somebody else wants the value from before the normalization
    return chain


def _dilate(conv, batch_to_space, nodes):
    """Turns a convolution between space-to-batch and batch-to-space into a dilated one; says whether it could.

    TensorFlow traces dilated convolutions that way. On CPUs with bfloat16 matrix units the dilated kernel takes
    60 % of the time (3x3, 512 channels, 59 x 59); in float32 the detour is the faster one, and stays.
    """
    space_to_batch = nodes[_node_name(conv.input[0])]
    if space_to_batch.op != "SpaceToBatchND" or conv.attr["padding"].s != b"VALID":
        return False
    block, paddings = (nodes[_node_name(name)] for name in space_to_batch.input[1:])
    if block.op != "Const" or paddings.op != "Const":
        return False  # sizes that are known only when it runs
    rates = tf.make_ndarray(block.attr["value"].tensor)
    before = tf.make_ndarray(paddings.attr["value"].tensor)[:, 0]
    if list(before) != list(rates):
        return False  # not the padding "SAME" of a 3x3 kernel
    conv.input[0] = space_to_batch.input[0]
    conv.attr["padding"].s = b"SAME"
    conv.attr["dilations"].list.i[:] = [1, int(rates[0]), int(rates[1]), 1]
    return True


def _take_parameters_out(graph_def, reader, pool, parameters):
    """Removes the nodes that read variables; what used them will find the value by tensor name."""
    kept = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    readers = {
        node.name for node in graph_def.node if node.op in _PASSES_VALUE_ON and reader.variable(node.name) is not None
    }
    for node in graph_def.node:
        if node.name in readers:
            continue
        for source in map(_node_name, node.input):
            if source in readers:
                variable, dtype = reader.variable(source), reader.dtype(source)
                key = pool.add((_path(variable), "value", dtype, id(variable)), dtype, lambda v=variable: v.numpy())
                parameters[f"{source}:0"] = key
        if node.op != "Placeholder":  # images and variables' handles: they come from outside too
            kept.node.append(node)
    return kept


def reachable(graph_def: tf.compat.v1.GraphDef, outputs: Iterable[str]) -> tf.compat.v1.GraphDef:
    """The nodes that the outputs need, without the edges that only order the reading of variables."""
    nodes = {node.name: node for node in graph_def.node}
    needed, waiting = set(), list(outputs)
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in needed:
            needed.add(name)
            waiting.extend(_node_name(source) for source in _data_inputs(nodes[name]))
    kept = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    for node in graph_def.node:
        if node.name in needed:
            kept.node.append(node)
            kept.node[-1].ClearField("input")
            kept.node[-1].input.extend(_data_inputs(node))
            # Nobody differentiates a served model, and TensorFlow would look for the gradient's tensors.
            kept.node[-1].attr.pop("_gradient_op_type", None)
    return kept


def _data_inputs(node):
    return [source for source in node.input if not source.startswith("^")]


def _node_name(tensor_name):
    return tensor_name.removeprefix("^").split(":")[0]


def _path(variable):
    return getattr(variable, "path", variable.name)


def _wide(variable):
    return np.asarray(variable.numpy(), np.float64)
