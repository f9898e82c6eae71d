"""The Garden's segmentation task with a PSANet, its two losses, its data and its sources of weights."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping

import tensorflow as tf
from absl import logging
from official.common import dataset_fn
from official.core import task_factory
from official.vision.dataloaders import input_reader, input_reader_factory, segmentation_input
from official.vision.tasks import semantic_segmentation

from psanet_tf.config import EvaluateSection
from psanet_tf.data.catalog import IGNORE_LABEL, dataset_info
from psanet_tf.garden import configs
from psanet_tf.garden.parser import PSANetParser, full_batches, image_format
from psanet_tf.losses import SegmentationLoss
from psanet_tf.models import PSANet
from psanet_tf.weights.description import Description, describe
from psanet_tf.weights.garden_checkpoints import NetworkRecord
from psanet_tf.weights.initial_weights import load_initial_weights

PARSERS = ("psanet", "garden")


@task_factory.register_task_cls(configs.PSANetTask)
class PSANetTask(semantic_segmentation.SemanticSegmentationTask):
    """Trains a PSANet with the Garden's trainer; steps and scores are the Garden's own.

    Its checkpoints say which network they are of (`psanet_tf.weights.garden_checkpoints`).
    """

    def build_model(self) -> PSANet:
        """The network, described by `task.dataset`, with what its checkpoints say of it.

        Raises:
            ValueError: arguments that do not go together, or another number of classes than the dataset has.
        """
        config = self.task_config
        _check_losses(config.losses)
        model = PSANet(**config.model.arguments())
        if config.dataset:
            info = dataset_info(config.dataset)
            if info.num_classes != config.model.num_classes:
                raise ValueError(
                    f"task.dataset: {config.dataset} has {info.num_classes} classes, task.model.num_classes is "
                    f"{config.model.num_classes}"
                )
            described = info.to_dict() | {"images": image_format(config.validation_data.image_feature).to_dict()}
            evaluate = EvaluateSection(base_size=config.base_size)
            describe(model, Description(type(info).from_dict(described), evaluate))
        model.network_record = NetworkRecord(model)
        return model

    def initialize(self, model: PSANet) -> None:
        """Sets the weights of `task.init_checkpoint`, as many as it has for this network.

        Raises:
            as `psanet_tf.weights.initial_weights.load_initial_weights`.
        """
        source = self.task_config.init_checkpoint
        if not source:
            return
        if self.task_config.init_checkpoint_modules != "all":
            raise ValueError(
                "task.init_checkpoint_modules must be all, of which what fits is taken, got "
                f"{self.task_config.init_checkpoint_modules!r}"
            )
        with _local(source) as path:
            for line in load_initial_weights(model, path):
                logging.info("%s", line)

    def build_inputs(
        self, params: configs.PSANetData, input_context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        """Batches of (image, labels) by the parser that the configuration names.

        Raises:
            ValueError: settings that do not go together.
        """
        name = "train_data" if params.is_training else "validation_data"
        self._check_data(params, f"task.{name}")
        if params.parser == "garden":
            return super().build_inputs(params, input_context)
        parser = PSANetParser(params, self.task_config.model.num_classes)
        reader = input_reader_factory.input_reader_generator(
            params,
            dataset_fn=dataset_fn.pick_dataset_fn(params.file_type),
            decoder_fn=segmentation_input.Decoder(image_feature=params.image_feature).decode,
            combine_fn=input_reader.create_combine_fn(params),
            parser_fn=parser.parse_fn(params.is_training),
            transform_and_batch_fn=None if params.drop_remainder else full_batches(params.global_batch_size),
        )
        return reader.read(input_context=input_context)

    def build_losses(
        self,
        labels: Mapping[str, tf.Tensor],
        model_outputs: Mapping[str, tf.Tensor],
        aux_losses: list[tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Cross entropy plus `aux_weight` times the auxiliary head's, each over the labelled pixels of all replicas.

        On every replica it is its own pixels' sum over the *mean* count of labelled pixels of a replica. The trainer
        divides by the number of replicas and sums over them: then it is the mean over all labelled pixels.

        Args:
            labels: "masks" [B, h, w, 1].
            model_outputs: "logits" and, with an auxiliary head, "aux_logits", [B, h, w, K] of the size of the labels.
            aux_losses: what layers add, if any.

        Returns:
            Scalar float32.
        """
        config = self.task_config.losses
        loss = SegmentationLoss(
            config.ignore_label,
            config.class_weights or None,
            config.label_smoothing,
            reduction="sum_over_batch_size",
        )
        masks = tf.squeeze(labels["masks"], -1)
        total = tf.reduce_mean(loss.call(masks, model_outputs["logits"]))
        if config.aux_weight and "aux_logits" in model_outputs:
            total += config.aux_weight * tf.reduce_mean(loss.call(masks, model_outputs["aux_logits"]))
        return config.loss_weight * tf.add_n([total, *(aux_losses or [])])

    def _check_data(self, params, name):
        if params.parser not in PARSERS:
            raise ValueError(f"{name}.parser must be one of {', '.join(PARSERS)}, got {params.parser!r}")
        size = list(self.task_config.model.input_size[:2])
        crop = list(params.crop_size or params.output_size) if params.parser == "garden" else list(params.output_size)
        if None not in size and crop != size:
            raise ValueError(f"{name}.output_size {crop} must be that of task.model.input_size, {size}")
        if not params.resize_eval_groundtruth:
            raise ValueError(f"{name}.resize_eval_groundtruth must be true: labels have the size of the logits")
        if params.parser == "garden":
            return
        if params.tfds_name:
            raise ValueError(f"{name}.tfds_name needs {name}.parser: garden, got {params.parser}")
        if params.additional_dense_features:
            raise ValueError(f"{name}.additional_dense_features needs {name}.parser: garden, got {params.parser}")
        if self.task_config.losses.ignore_label != IGNORE_LABEL:
            raise ValueError(
                f"task.losses.ignore_label must be {IGNORE_LABEL}, which the records of psanet data to-tfrecord hold, "
                f"got {self.task_config.losses.ignore_label}"
            )


def _check_losses(config: configs.PSANetLosses) -> None:
    """Refuses settings of the Garden's loss that this one does not have."""
    without = {
        "l2_weight_decay": (0.0, "set trainer.optimizer_config.optimizer.psanet_sgd.weight_decay"),
        "use_binary_cross_entropy": (False, "the loss is a softmax cross entropy"),
        "top_k_percent_pixels": (1.0, "all labelled pixels count"),
        "gt_is_matting_map": (False, "labels are classes"),
        "use_groundtruth_dimension": (True, "labels have the size of the logits"),
    }
    for name, (usual, instead) in without.items():
        if getattr(config, name) != usual:
            raise ValueError(f"task.losses.{name} must be {usual} for a PSANet: {instead}; got {getattr(config, name)}")


@contextlib.contextmanager
def _local(source: str) -> Iterator[str]:
    """A file, or all files of a checkpoint, of a file system that only TensorFlow reads, as local ones."""
    scheme, separator, _ = source.partition("://")
    if not separator or scheme in ("http", "https"):
        yield source
        return
    if tf.io.gfile.isdir(source):
        latest = tf.train.latest_checkpoint(source)
        if latest is None:
            raise FileNotFoundError(f"task.init_checkpoint: {source} holds no checkpoint")
        source = latest
    source = source.removesuffix(".index")
    files = [source] if tf.io.gfile.exists(source) else tf.io.gfile.glob(f"{source}.*")
    if not files:
        raise FileNotFoundError(f"task.init_checkpoint: there is no {source}")
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            tf.io.gfile.copy(path, os.path.join(folder, os.path.basename(path)))
        yield os.path.join(folder, os.path.basename(source))
