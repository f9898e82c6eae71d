"""Checkpoints of TensorFlow's Model Garden: what they say of the network, and reading them without the Garden.

They are `tf.train.Checkpoint`s whose "model" is a `PSANet` under legacy Keras. Their graph of objects has the names of
the variables, which are the paths of Keras 3, and `NetworkRecord` puts the network's configuration in.
"""

import json
import os
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from psanet_tf.models import PSANet

_MODEL, _RECORD = "model", "network_record"
_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_BEST = "best_ckpt"  # the folder to which the Garden's trainer exports the best checkpoint


class NetworkRecord(tf.train.experimental.PythonState):
    """Makes checkpoints of a network say which one it is, as its attribute ``network_record``.

    Args:
        model: PSANet.
    """

    def __init__(self, model: PSANet) -> None:
        super().__init__()
        self._text = json.dumps(model.get_config())

    def serialize(self) -> str:
        return self._text

    def deserialize(self, string_value: str) -> None:
        """A restored checkpoint's does not count: the network is there already."""


def garden_checkpoint(path: str | os.PathLike) -> Path | None:
    """The index file of the Garden's checkpoint that a path stands for.

    Args:
        path: a folder of the Garden's trainer, whose best checkpoint is taken, or its latest where none was exported;
            a checkpoint as TensorFlow names it (``ckpt-225``), or its ``.index`` file.

    Returns:
        Path of the ``.index`` file, or None for anything else.
    """
    path = Path(path)
    if path.is_dir():
        for folder in (path / _BEST, path):
            latest = tf.train.latest_checkpoint(folder)
            if latest is not None:
                return Path(f"{latest}.index")
        return None
    index = path if path.suffix == ".index" else path.with_name(f"{path.name}.index")
    return index if index.is_file() else None


def load_garden_checkpoint(index: Path) -> PSANet:
    """The network of a checkpoint, under whichever Keras is in use.

    Args:
        index: its ``.index`` file.

    Raises:
        ValueError: it is damaged, or not of a PSANet.
    """
    prefix = str(index.with_suffix(""))
    try:
        reader = tf.train.load_checkpoint(prefix)
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH_KEY))
        model_node = _child(graph, graph.nodes[0], _MODEL)
        record = model_node and _child(graph, model_node, _RECORD)
        if record is None:
            raise ValueError(
                f"{prefix} is no checkpoint of a PSANet that the Garden has trained: it holds no {_MODEL}/{_RECORD}"
            )
        model = PSANet.from_config(json.loads(reader.get_tensor(record.attributes[0].checkpoint_key)))
        keys = _variables(graph, model_node)
        wanted = {_path(variable): variable for variable in model.weights}
        if wanted.keys() != keys.keys():
            different = sorted(wanted.keys() ^ keys.keys())
            raise ValueError(f"{prefix} holds other weights than its network has: {', '.join(different[:5])}")
        for path, variable in wanted.items():
            variable.assign(reader.get_tensor(keys[path]))
    except (tf.errors.OpError, RuntimeError) as error:
        raise ValueError(f"{prefix} cannot be read as a checkpoint: {error}") from None
    return model


def _child(graph, node, name):
    return next((graph.nodes[child.node_id] for child in node.children if child.local_name == name), None)


def _variables(graph, node):
    """{path: key in the checkpoint} of all variables below a node."""
    found, seen, todo = {}, set(), [node]
    while todo:
        node = todo.pop()
        for attribute in node.attributes:
            if attribute.name == "VARIABLE_VALUE":
                found[attribute.full_name] = attribute.checkpoint_key
        for child in node.children:
            if child.node_id not in seen:
                seen.add(child.node_id)
                todo.append(graph.nodes[child.node_id])
    return found


def _path(variable):
    return getattr(variable, "path", None) or variable.name.partition(":")[0]
