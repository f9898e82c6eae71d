"""On which devices a run trains, and whether XLA compiles its steps."""

import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from psanet_tf.config import TrainSection


def build_strategy(section: TrainSection) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy over all GPUs, or over logical CPU devices where there is none.

    A single device gets TensorFlow's default strategy, which is none: XLA compiles no step of any other.

    Args:
        section: `TrainSection`.

    Returns:
        tf.distribute.MirroredStrategy for several devices, else the default one.

    Raises:
        ValueError: TensorFlow was started before with fewer CPU devices than `cpu_replicas`.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    if gpus or section.cpu_replicas == 1:
        return tf.distribute.get_strategy()
    devices = [f"CPU:{index}" for index in range(_logical_cpus(section.cpu_replicas))]
    # Collective operations are for devices that can't read each other's memory; and their keys are shared
    # by all strategies of a process, where two of them then get in each other's way.
    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())


def devices_of(strategy: tf.distribute.Strategy) -> list[str]:
    """Names of the devices that this process trains on."""
    if is_default(strategy):
        return [(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU"))[0].name]
    return list(strategy.extended.worker_devices)


def is_default(strategy: tf.distribute.Strategy) -> bool:
    """Whether the strategy is the one that TensorFlow has outside the scope of any other."""
    with strategy.scope():
        return not tf.distribute.has_strategy()


def uses_xla(section: TrainSection, strategy: tf.distribute.Strategy) -> bool:
    """What `train.jit_compile` comes to on these devices.

    Args:
        section: `TrainSection`.
        strategy: `tf.distribute` strategy.

    Returns:
        bool; for "auto" whether there is one GPU and no demand for determinism.

    Raises:
        ValueError: XLA is asked for where it cannot compile a step.
    """
    if section.jit_compile is False:
        return False
    obstacle = None
    if strategy.num_replicas_in_sync > 1:
        obstacle = f"XLA compiles the steps of one device only, here are {strategy.num_replicas_in_sync} replicas"
    elif not is_default(strategy):
        obstacle = f"XLA compiles no step under a tf.distribute strategy, here is a {type(strategy).__name__}"
    elif section.deterministic or is_op_determinism_enabled():
        demand = (
            "train.deterministic: true" if section.deterministic else "tf.config.experimental.enable_op_determinism"
        )
        obstacle = f"Keras has XLA compile nothing where operations must be deterministic ({demand})"
    if section.jit_compile == "auto":
        return obstacle is None and bool(tf.config.list_physical_devices("GPU"))
    if obstacle:
        raise ValueError(f"train.jit_compile: true: {obstacle}; auto uses XLA where it can, false never does")
    return True


def _logical_cpus(count):
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) < count:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError:
            raise ValueError(
                f"train.cpu_replicas: {count} CPU devices were asked for, but TensorFlow has been started with fewer; "
                "split the CPU before the first operation (tf.config.set_logical_device_configuration)"
            ) from None
    return count
