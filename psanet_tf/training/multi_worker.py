"""Several machines: which worker this process is, and what Keras 3 needs for `fit` to run on them."""

import importlib
import inspect
import json
import os
from types import ModuleType

import tensorflow as tf

from psanet_tf.keras_api import keras

_KERAS_ISSUE = "https://github.com/keras-team/keras/issues/20585"


def set_workers(workers: str, index: int | None) -> None:
    """Tells TensorFlow about the cluster, as the environment variable TF_CONFIG does.

    Args:
        workers: ``"host:port,host:port"``, the same on every worker; the first one writes the run folder.
        index: this process's place in it.

    Raises:
        ValueError: fewer than two workers, not of that form, or an index outside of them.
    """
    addresses = [address.strip() for address in workers.split(",") if address.strip()]
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"--workers: each must be host:port, got {address!r}")
    if len(addresses) < 2 or len(set(addresses)) != len(addresses):
        raise ValueError(f"--workers: two or more different host:port are needed, got {workers!r}")
    if index is None or not 0 <= index < len(addresses):
        raise ValueError(f"--index: must be 0..{len(addresses) - 1} for these --workers, got {index}")
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def has_workers() -> bool:
    """Whether TF_CONFIG names a cluster of several workers."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except ValueError as error:
        raise ValueError(f"TF_CONFIG is not JSON: {error}") from None
    return sum(len(addresses) for addresses in cluster.values()) > 1


def build_multi_worker_strategy() -> tf.distribute.MultiWorkerMirroredStrategy:
    """The strategy over all workers; it returns when all of them have come.

    Returns:
        tf.distribute.MultiWorkerMirroredStrategy.

    Raises:
        RuntimeError: this version of Keras isn't one that the patches are for.
    """
    patch_keras()
    return tf.distribute.MultiWorkerMirroredStrategy()


def runs_as_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files: the only one, or the first worker."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or not resolver.task_type:
        return True
    if resolver.task_type == "chief":
        return True
    return resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs


def patch_keras() -> None:
    """Replaces the two functions of Keras 3 that fail under MultiWorkerMirroredStrategy.

    `_maybe_symbolic_build` reduces a nested batch over the workers only to learn its shapes, and
    `reduce_per_replica` reduces scalars over their axis 0 (keras issue 20585).

    Raises:
        RuntimeError: one of them is not as it was when this was written.
    """
    trainer = _keras_trainer()
    if trainer is None:
        raise _unknown_keras("keras.src.backend.tensorflow.trainer")
    original = trainer.reduce_per_replica
    if getattr(original, "of_psanet", False):
        return
    build = getattr(trainer.TensorFlowTrainer, "_maybe_symbolic_build", None)
    if build is None:
        raise _unknown_keras("TensorFlowTrainer._maybe_symbolic_build")
    expected = (
        (build, "self.distribute_strategy.reduce(", ["self", "iterator", "data_batch"]),
        (original, 'strategy.reduce("MEAN", v, axis=0)', ["values", "strategy", "reduction"]),
    )
    for function, line, parameters in expected:
        if line not in inspect.getsource(function) or list(inspect.signature(function).parameters) != parameters:
            raise _unknown_keras(function.__qualname__)
    trainer.TensorFlowTrainer._maybe_symbolic_build = _maybe_symbolic_build
    trainer.reduce_per_replica = _reduction_instead_of(original)


def _keras_trainer() -> ModuleType | None:
    """Keras's private module of that name; nothing but training on several machines asks for it."""
    try:
        return importlib.import_module("keras.src.backend.tensorflow.trainer")
    except ModuleNotFoundError:
        return None


def _unknown_keras(name: str) -> RuntimeError:
    return RuntimeError(
        f"training on several machines replaces {name} of Keras ({_KERAS_ISSUE}), which Keras {keras.__version__} "
        "has not, or not as it was. Use the Keras of constraints.txt; if the issue has been solved, "
        "psanet_tf/training/multi_worker.py can do without the replacement"
    )


def _maybe_symbolic_build(self, iterator=None, data_batch=None):
    strategy = self._distribute_strategy
    if strategy is None:
        return
    if iterator is not None:
        _, _, batches = next(iter(iterator))
        # Shapes are all that is asked for: those of this worker's first replica do.
        data_batch = tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], next(batches))
    with strategy.scope():
        self._symbolic_build(data_batch=data_batch)


def _reduction_instead_of(original):
    def reduce_per_replica(values, strategy, reduction):
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and reduction in ("auto", "mean"):
            return tf.nest.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)
        return original(values, strategy, reduction)

    reduce_per_replica.of_psanet = True
    return reduce_per_replica
