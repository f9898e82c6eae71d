"""What the Garden's configurations say of a PSANet: network, data, losses, optimizer, task."""

import dataclasses
from typing import Any

from official.modeling import hyperparams
from official.modeling.optimization.configs import optimization_config, optimizer_config
from official.vision.configs import semantic_segmentation

# The Garden builds configurations from the annotations of these classes: `list`, not `Sequence`.


@dataclasses.dataclass
class PSANetModel(hyperparams.Config):
    """The network; what is not explained here is an argument of `psanet_tf.PSANet`.

    Attributes:
        num_classes: number of classes.
        input_size: [rows, columns, channels] of the images; rows and columns may be None where `mask_size` is given.
        blocks: bottleneck blocks per stage, in place of `depth`; [] for none.
        mask_size: [rows, columns] of the over-complete mask; [] for what reaches all of the features.
        stem, mid_channels, align_corners: None for the default.
    """

    num_classes: int = 0
    input_size: list[int] = dataclasses.field(default_factory=list)
    variant: str = "semseg"
    depth: int = 50
    blocks: list[int] = dataclasses.field(default_factory=list)
    width: int = 64
    stem: str | None = None
    stride_in_1x1: bool = False
    output_stride: int = 8
    use_psa: bool = True
    psa_type: str = "bi-direction"
    compact: bool = False
    shrink_factor: int = 2
    mask_size: list[int] = dataclasses.field(default_factory=list)
    mid_channels: int | None = None
    normalization_factor: float | None = 1.0
    psa_softmax: bool = True
    align_corners: bool | None = None
    dropout: float = 0.1
    aux_head: bool = True
    synchronized_batch_norm: bool = True
    implementation: str = "auto"
    block_size: str | int | None = "auto"

    def arguments(self) -> dict[str, Any]:
        """Those of `psanet_tf.PSANet`."""
        arguments = self.as_dict()
        for name in ("blocks", "mask_size"):
            arguments[name] = arguments[name] or None
        return arguments | {"input_shape": tuple(arguments.pop("input_size"))}


def _photographs():
    """As by the Garden's default, in lists: the tuples there make a params.yaml that its own driver cannot read."""
    feature = semantic_segmentation.DenseFeatureConfig()
    return feature.replace(mean=list(feature.mean), stddev=list(feature.stddev))


@dataclasses.dataclass
class PSANetData(semantic_segmentation.DataConfig):
    """The images. `output_size` are rows and columns of a crop, those of the model's `input_size`.

    Attributes:
        parser: "psanet": the augmentation of the paper's implementation (scale within `aug_scale_min` and
            `aug_scale_max`, rotation, blur, mirror, crop) for training; for validation, images cut or padded about
            their middle. "garden": the Garden's own, which fits whole images into `output_size`.
        rotate_degrees: largest rotation to either side; of the parser "psanet", as the next ones.
        rotate_probability: of being rotated.
        blur_probability: of being blurred.
    """

    image_feature: semantic_segmentation.DenseFeatureConfig = dataclasses.field(default_factory=_photographs)
    parser: str = "psanet"
    aug_scale_min: float = 0.5
    aug_scale_max: float = 2.0
    rotate_degrees: float = 10.0
    rotate_probability: float = 0.5
    blur_probability: float = 0.5


@dataclasses.dataclass
class PSANetLosses(semantic_segmentation.Losses):
    """The losses: of the Garden's, `loss_weight`, `label_smoothing`, `ignore_label` and `class_weights` count.

    Attributes:
        aux_weight: weight of the auxiliary loss.
    """

    aux_weight: float = 0.4


@dataclasses.dataclass
class PSANetTask(semantic_segmentation.SemanticSegmentationTask):
    """The task.

    Attributes:
        init_checkpoint: initial weights: "imagenet", a name of ``psanet weights list``, a URL, a ``.pth``,
            ``.safetensors``, ``.keras`` or ``.h5`` file, a run folder of ``psanet train``, or a folder or checkpoint of
            the Garden's trainer; files and checkpoints on ``gs://`` too.
        dataset: "ade20k", "voc2012", "cityscapes", "scenes" or "signposts": whose classes and colours checkpoints name;
            "" for none.
        base_size: long side, in pixels, to which ``psanet evaluate`` and ``psanet predict`` resize images for this
            network; None for the dataset's.
    """

    model: PSANetModel = dataclasses.field(default_factory=PSANetModel)
    train_data: PSANetData = dataclasses.field(default_factory=lambda: PSANetData(is_training=True))
    validation_data: PSANetData = dataclasses.field(
        default_factory=lambda: PSANetData(is_training=False, drop_remainder=False)
    )
    losses: PSANetLosses = dataclasses.field(default_factory=PSANetLosses)
    dataset: str = ""
    base_size: int | None = None


@dataclasses.dataclass
class PSANetSGD(optimizer_config.BaseOptimizerConfig):
    """Arguments of `psanet_tf.garden.SGD`."""

    name: str = "SGD"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    head_learning_rate_factor: float = 10.0
    decay_norm_and_bias: bool = True


@dataclasses.dataclass
class PSANetOptimizer(optimization_config.OptimizerConfig):
    """The Garden's optimizers, and ``type: psanet_sgd``."""

    psanet_sgd: PSANetSGD = dataclasses.field(default_factory=PSANetSGD)


@dataclasses.dataclass
class PSANetOptimization(optimization_config.OptimizationConfig):
    """Optimizer, schedule and moving average."""

    optimizer: PSANetOptimizer = dataclasses.field(default_factory=PSANetOptimizer)
