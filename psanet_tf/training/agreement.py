"""What the workers of a run decide together, and what must be the same on all of them."""

import functools
import hashlib
import json

import tensorflow as tf

import psanet_tf
from psanet_tf.config import Config, DataSection, flat_config
from psanet_tf.data.readers import list_examples

# Neither makes other weights of the same images; the root may be another one on each machine.
_MAY_DIFFER = ("data.root", "data.workers", "evaluate")


class Agreement:
    """What all workers decide together; every worker has to ask at the same places.

    Args:
        strategy: `tf.distribute` strategy.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self._alone = not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)

    def any(self, flags: list[bool]) -> list[bool]:
        """For each flag, whether a worker has it set.

        Args:
            flags: list of bool, equally many on all workers.

        Returns:
            list of bool, the same on all workers.
        """
        if self._alone:
            return flags
        counts = self._sum(tf.constant(flags, tf.float32))
        return [bool(count > 0) for count in counts.numpy()]

    def wait(self) -> None:
        """Returns when all workers have come here."""
        self.any([False])

    def compare(self, facts: dict[str, str], complaint: str) -> None:
        """Refuses to go on where workers differ.

        Args:
            facts: {name: text}.
            complaint: what the error begins with.

        Raises:
            ValueError: a fact of another worker is another one; the message has name and values.
        """
        if self._alone:
            return
        resolver = self._strategy.cluster_resolver
        mine = json.dumps([f"{resolver.task_type} {resolver.task_id}", facts]) + "\n"
        # As int32, which can be gathered everywhere.
        gathered = self._gather(tf.constant(list(mine.encode()), tf.int32))
        workers = dict(json.loads(line) for line in bytes(gathered.numpy().tolist()).decode().splitlines())
        (first, reference), *others = sorted(workers.items())
        for other, theirs in others:
            for name in sorted(reference.keys() | theirs.keys()):
                here, there = reference.get(name, "not there"), theirs.get(name, "not there")
                if here != there:
                    raise ValueError(f"{complaint}: {name} is {here} on {first}, {there} on {other}")

    @functools.cached_property
    def _sum(self):
        def of_replica(flags):
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(flags))

        return self._on_all(of_replica, tf.TensorSpec([None], tf.float32))

    @functools.cached_property
    def _gather(self):
        def of_replica(codes):
            return tf.distribute.get_replica_context().all_gather(tf.identity(codes), axis=0)

        return self._on_all(of_replica, tf.TensorSpec([None], tf.int32))

    def _on_all(self, of_replica, spec):
        # `of_replica` must copy what it is given: the argument of a graph is on no device yet.
        strategy = self._strategy

        @tf.function(input_signature=[spec])
        def run(values):
            return strategy.experimental_local_results(strategy.run(of_replica, args=(values,)))[0]

        return run


def settings_in_words(config: Config) -> dict[str, str]:
    """{name: value} of all that makes a difference to the weights, but the data."""
    settings = {key: repr(value) for key, value in flat_config(config).items() if not key.startswith(_MAY_DIFFER)}
    return settings | {"the version of psanet_tf": psanet_tf.__version__}


def data_in_words(data: DataSection) -> dict[str, str]:
    """{split: how many images there are, and a hash of their names and of the sizes of their files}

    Args:
        data: `DataSection`.

    Raises:
        FileNotFoundError, ValueError: no such data.
    """
    return {f"split {split!r}": _split_in_words(data, split) for split in (data.train_split, data.val_split)}


def _split_in_words(data, split):
    examples = list_examples(data, split)
    files = [(item.name, item.image_path.stat().st_size, item.label_path.stat().st_size) for item in examples]
    digest = hashlib.blake2b(json.dumps(files).encode(), digest_size=8).hexdigest()
    return f"{len(examples)} images (names and sizes {digest})"
