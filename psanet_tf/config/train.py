"""`train:` section: the recipe (paper, section 4.1; the public implementation's training script) and its options."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from psanet_tf.config.section import Section

LOSSES = ("cross_entropy", "focal", "dice", "lovasz_softmax")
KERAS_OPTIMIZERS = ("adadelta", "adafactor", "adagrad", "adam", "adamax", "lamb", "lion", "rmsprop")
_USUAL_RATES = {"adadelta": 1.0, "adagrad": 1e-2, "lion": 1e-4}


class EarlyStoppingSection(Section):
    monitor: Literal["val_miou", "val_loss", "miou", "loss"] = Field(
        "val_miou", description="column of metrics.csv: the largest mIoU is the best, the smallest loss"
    )
    patience: int = Field(10, ge=1, description="training ends when this many values in turn were not better")
    min_delta: float = Field(0.0, ge=0, allow_inf_nan=False, description="by how much a value has to be better")


class TrainSection(Section):
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(16, ge=1, description="images per step over all replicas")
    seed: int = Field(0, ge=0, description="of the initial weights, dropout, order of images and augmentation")
    init: str | None = Field(
        None,
        description="initial weights: imagenet (a published backbone that fits), a name of psanet weights list, a URL, "
        "a run folder or .keras file, a .pth or .safetensors of the original implementation (whole "
        "network or backbone) or of a torchvision ResNet, or a weights file of a keras.applications ResNet",
    )

    optimizer: Literal[("sgd", *KERAS_OPTIMIZERS)] = Field(
        "sgd",
        description="sgd is PyTorch's, with the weight decay as an L2 term; the others are Keras's, with decoupled "
        "weight decay (adam with weight_decay is AdamW)",
    )
    optimizer_arguments: dict[str, float | bool] = Field(
        {}, description="further arguments of the Keras optimizer, e.g. {beta_2: 0.99}"
    )
    learning_rate: float = Field(
        0.01, gt=0, description="of the backbone, at the first step; to be given for Keras's optimizers"
    )
    head_learning_rate_factor: float = Field(
        default_factory=lambda fields: 10.0 if fields.get("optimizer") == "sgd" else 1.0,
        gt=0,
        description="for the attention module and both heads; by default 10 for sgd and 1 for Keras's optimizers",
    )
    learning_rate_multipliers: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        {},
        description="{pattern: factor} of learning_rate for the variables whose path the regular expression is found "
        "in, e.g. {backbone/.*: 0.1}; the first that fits counts, before head_learning_rate_factor",
    )
    schedule: Literal["poly", "cosine"] = Field(
        "poly",
        description="how the learning rate falls to 0 over all steps: (1 - i / steps)^poly_power, or half a cosine",
    )
    poly_power: float = Field(0.9, gt=0, description="of schedule: poly")
    warmup_steps: int = Field(0, ge=0, description="the learning rate rises linearly over the first updates")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(1e-4, ge=0)
    decay_norm_and_bias: bool = Field(True, description="false: no weight decay on batch normalization and biases")
    clip_norm: float | None = Field(None, gt=0, description="largest global norm of the gradient")
    accumulation_steps: int = Field(
        1, ge=1, description="steps per update; the effective batch is this many times batch_size"
    )
    ema_decay: float | None = Field(
        None, ge=0, lt=1, description="validate and save an exponential moving average of the weights, e.g. 0.999"
    )

    aux_weight: float = Field(
        0.4, ge=0, description="weight of the auxiliary loss; 0: neither it nor its head is computed in training"
    )
    loss: dict[Literal[LOSSES], Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        {"cross_entropy": 1.0},
        min_length=1,
        description="{name: weight} of losses that are added up, for both heads, e.g. {cross_entropy: 1, dice: 0.5}",
    )
    focal_gamma: float = Field(
        2.0, ge=0, allow_inf_nan=False, description="of focal: how much less a pixel counts that is right already"
    )
    class_weights: Literal["median_frequency"] | tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None,
        description="one weight per class for the pixels of cross_entropy and focal; median_frequency: from the "
        "training labels, once, kept in the run folder (Eigen and Fergus 2015)",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of cross_entropy")
    ohem_threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        description="hard example mining of cross_entropy: pixels whose class has a lower probability count",
    )
    ohem_min_kept: float = Field(0.0625, gt=0, le=1, description="share of each image's pixels that counts at least")
    zoom_factor: Literal[1, 2, 4, 8] = Field(
        8, description="below 8 the loss is taken on logits and labels of (size - 1) / 8 * zoom_factor + 1"
    )

    sync_batch_norm: bool = Field(True, description="batch statistics over all replicas")
    freeze: tuple[str, ...] = Field(
        (), description="layers that stay as they are: [backbone], or names and patterns such as layer1_*, psa, head_*"
    )
    freeze_batch_norm: bool = Field(
        False, description="batch normalization keeps its statistics, scales and shifts as they are in init"
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="mixed_float16 scales the loss dynamically"
    )
    rematerialize: Literal["none", "blocks"] = Field(
        "none",
        description="blocks: keep what enters each residual block only, and compute the rest again for the gradient; "
        "less memory, about a quarter more time, the same results",
    )
    cpu_replicas: int = Field(
        1, ge=1, description="logical CPU devices to train on where there is no GPU; each builds a graph of its own"
    )
    jit_compile: Literal["auto"] | bool = Field(
        "auto",
        description="XLA compiles the steps, on one device only; auto: on a single GPU where deterministic is false",
    )
    tensor_float_32: bool = Field(
        True,
        description="GPUs that can may round the factors of float32 products to 10 bits, which is TensorFlow's default",
    )
    deterministic: bool = Field(
        False, description="bit-equal runs on GPUs too, where some kernels become slower; CPUs need it not"
    )

    validate_every: int = Field(1, ge=1, description="epochs from one validation to the next")
    keep_last: int = Field(0, ge=0, description="checkpoints of this many last epochs stay in RUN_DIR/checkpoints")
    save_every_minutes: float | None = Field(
        10.0, gt=0, description="save what resuming needs when the last time is this long ago; null: after epochs only"
    )
    save_every_steps: int | None = Field(
        None, ge=1, description="also save what resuming needs within an epoch, after this many steps"
    )
    early_stopping: EarlyStoppingSection | None = Field(
        None, description="end the run when a score is no longer getting better, e.g. {monitor: val_miou, patience: 10}"
    )
    log_every: int | None = Field(
        50,
        ge=1,
        description="steps from one line on loss, rates, gradient and speed to the next, on the terminal, in train.log "
        "and for TensorBoard; null: epochs only",
    )
    tensorboard: bool = Field(True, description="write losses, rates, scores and images for TensorBoard")

    @model_validator(mode="after")
    def _consistent(self):
        if self.optimizer != "sgd" and "learning_rate" not in self.model_fields_set:
            usual = _USUAL_RATES.get(self.optimizer, 1e-3)
            raise ValueError(
                f"optimizer {self.optimizer} needs a learning_rate of its own, the default (0.01) is sgd's: {usual:g} "
                "is usual from random weights, a tenth of it for weights that are trained already"
            )
        if self.optimizer == "sgd" and self.optimizer_arguments:
            raise ValueError("optimizer_arguments are for Keras's optimizers; sgd has momentum and weight_decay")
        if self.optimizer != "sgd":
            self._refuse_without_effect(
                "momentum", f"only for optimizer: sgd; what {self.optimizer} takes goes into optimizer_arguments"
            )
        if self.schedule != "poly":
            self._refuse_without_effect("poly_power", f"only for schedule: poly, the schedule is {self.schedule}")
        return self

    @model_validator(mode="after")
    def _options_of_losses(self):
        per_pixel = {"cross_entropy", "focal"} & self.loss.keys()
        if self.class_weights is not None and not per_pixel:
            raise ValueError(
                f"class_weights weigh the pixels of cross_entropy and focal, train.loss has {', '.join(self.loss)}, to "
                "which every class counts equally: leave them out, or add one of the two"
            )
        given = [name for name in ("label_smoothing", "ohem_threshold") if getattr(self, name)]
        if given and "cross_entropy" not in self.loss:
            raise ValueError(
                f"{' and '.join(given)}: only for cross_entropy, train.loss has {', '.join(self.loss)}: leave it out, "
                "or add cross_entropy"
            )
        if "focal" not in self.loss:
            self._refuse_without_effect("focal_gamma", f"only for focal, train.loss has {', '.join(self.loss)}")
        if self.ohem_threshold is None:
            self._refuse_without_effect("ohem_min_kept", "only beside ohem_threshold, which is not set")
        return self

    def _refuse_without_effect(self, name, why):
        # Configurations of runs have every key: what is as by default may not have been set by anyone.
        value = getattr(self, name)
        if value != type(self).model_fields[name].default:
            raise ValueError(f"{name}: {why}: {value:g} would change nothing, leave it out")

    @field_validator("learning_rate_multipliers")
    @classmethod
    def _patterns_compile(cls, multipliers):
        for pattern in multipliers:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return multipliers
