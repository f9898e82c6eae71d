"""`train:` section: the recipe (paper, section 4.1; the public implementation's training script)."""

from pydantic import Field

from psanet_tf.config.section import Section


class TrainSection(Section):
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(16, ge=1, description="pictures per step over all replicas")
    seed: int = Field(0, ge=0)
    learning_rate: float = Field(0.01, gt=0, description="of the backbone, at the first step")
    head_learning_rate_factor: float = Field(10.0, gt=0, description="for the attention module and both heads")
    power: float = Field(0.9, gt=0, description="of the polynomial decay")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0, description="L2 term added to the gradient of every parameter")
    aux_weight: float = Field(0.4, ge=0, description="weight of the auxiliary loss")
    sync_batch_norm: bool = Field(True, description="batch statistics over all replicas")
