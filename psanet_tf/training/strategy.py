"""On which devices a run trains."""

import tensorflow as tf

from psanet_tf.config import TrainSection


def build_strategy(section: TrainSection) -> tf.distribute.MirroredStrategy:
    """A `tf.distribute` strategy over all GPUs, or over logical CPU devices where there is none.

    Args:
        section: `TrainSection`.

    Returns:
        tf.distribute.MirroredStrategy.

    Raises:
        ValueError: TensorFlow was started before with fewer CPU devices than `cpu_replicas`.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        strategy = tf.distribute.MirroredStrategy()
    else:
        devices = [f"CPU:{index}" for index in range(_logical_cpus(section.cpu_replicas))]
        # Collective operations are for devices that can't read each other's memory; and their keys are shared
        # by all strategies of a process, where two of them then get in each other's way.
        strategy = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
    return strategy


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
