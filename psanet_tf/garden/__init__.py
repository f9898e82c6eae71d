"""PSANet in TensorFlow's Model Garden: model, task, data and experiments for its trainer.

Importing this package registers all of it with the Garden; ``python -m psanet_tf.garden`` is its driver with that done.
It needs legacy Keras (``TF_USE_LEGACY_KERAS=1``), as the Garden does, and the extra ``garden``.
"""

from psanet_tf.extras import needs_extra
from psanet_tf.keras_api import needs_tf_keras

needs_tf_keras("psanet_tf.garden")
with needs_extra("garden", "psanet_tf.garden"):
    import official.core
    import official.vision  # noqa: F401

from psanet_tf.garden import experiments  # noqa: E402
from psanet_tf.garden.configs import PSANetData, PSANetLosses, PSANetModel  # noqa: E402
from psanet_tf.garden.optimizer import SGD  # noqa: E402
from psanet_tf.garden.parser import PSANetParser  # noqa: E402
from psanet_tf.garden.task import PSANetTask  # noqa: E402

__all__ = [
    "SGD",
    "PSANetData",
    "PSANetLosses",
    "PSANetModel",
    "PSANetParser",
    "PSANetTask",
    "experiments",
]
