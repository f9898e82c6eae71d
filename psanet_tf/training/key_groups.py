"""Which keys of a configuration a run may change when it goes on, and what that means for its weights."""

# Every key of a configuration is in one of these groups; a section's name stands for all its keys.

EXACT = (
    # Where the data lie and how they are read; what they are is compared by their contents.
    "data.root",
    "data.format",
    "data.class_names",
    "data.class_colors",
    "data.list_file",
    "data.image_folder",
    "data.label_folder",
    "data.workers",
    # What is shown of an image.
    "data.display",
    # Images that can't be read end a run with "raise", so none has been passed over that would count now.
    "data.on_error",
    # What is written, scored and when.
    "train.validate_every",
    "train.keep_last",
    "train.save_every_minutes",
    "train.save_every_steps",
    "train.log_every",
    "train.tensorboard",
    # When the run ends, not what its steps are.
    "train.early_stopping",
    "evaluate",
)
"""Neither weights nor rounding depend on these."""

ROUNDING = (
    "train.cpu_replicas",
    "train.deterministic",
    "train.jit_compile",
    "train.rematerialize",
    "train.tensor_float_32",
)
"""The same mathematics on other devices or by other kernels."""

LENGTH = "train.epochs"
"""Only `extend` changes it."""

FIXED = (
    "data.dataset",
    "data.train_split",
    "data.val_split",
    "data.label_kind",
    "data.label_values",
    "data.label_map",
    "data.ignore_label",
    "data.label_palette",
    "data.channels",
    "data.dtype",
    "data.mean",
    "data.std",
    "data.crop_size",
    "data.augmentation",
    "model",
    "train.batch_size",
    "train.seed",
    "train.init",
    "train.optimizer",
    "train.optimizer_arguments",
    "train.learning_rate",
    "train.head_learning_rate_factor",
    "train.learning_rate_multipliers",
    "train.schedule",
    "train.poly_power",
    "train.warmup_steps",
    "train.momentum",
    "train.weight_decay",
    "train.decay_norm_and_bias",
    "train.clip_norm",
    "train.accumulation_steps",
    "train.ema_decay",
    "train.aux_weight",
    "train.loss",
    "train.focal_gamma",
    "train.class_weights",
    "train.label_smoothing",
    "train.ohem_threshold",
    "train.ohem_min_kept",
    "train.zoom_factor",
    "train.sync_batch_norm",
    "train.freeze",
    "train.freeze_batch_norm",
    "train.precision",
)
"""Another value makes another run."""


def group_of(key: str) -> tuple[str, ...]:
    """EXACT, ROUNDING, (LENGTH,) or FIXED for a key of `flat_config`; keys that are in none are FIXED."""
    for group in (EXACT, ROUNDING, (LENGTH,)):
        if any(key == name or key.startswith(name + ".") for name in group):
            return group
    return FIXED
