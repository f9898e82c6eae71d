"""The Garden's experiments with a PSANet: the paper's recipe on three datasets, and the small one on the scenes."""

from official.core import config_definitions, exp_factory
from official.vision.configs import semantic_segmentation

from psanet_tf.data.catalog import dataset_info
from psanet_tf.garden.configs import PSANetData, PSANetModel, PSANetOptimization, PSANetTask


@exp_factory.register_config_factory("psanet_seg_ade20k")
def ade20k() -> config_definitions.ExperimentConfig:
    """PSANet-50 on ADE20K, as configs/ade20k/psanet50.yaml."""
    return _of_the_paper("ade20k", crop=465, images=20210, epochs=100, splits=("training", "validation"))


@exp_factory.register_config_factory("psanet_seg_cityscapes")
def cityscapes() -> config_definitions.ExperimentConfig:
    """PSANet-50 on Cityscapes, as configs/cityscapes/psanet50.yaml."""
    return _of_the_paper("cityscapes", crop=705, images=2975, epochs=200, splits=("train", "val"))


@exp_factory.register_config_factory("psanet_seg_pascal")
def pascal() -> config_definitions.ExperimentConfig:
    """PSANet-50 on PASCAL VOC 2012 with the augmented training images, as configs/voc2012/psanet50.yaml."""
    return _of_the_paper("voc2012", crop=465, images=10582, epochs=50, splits=("train_aug", "val"))


@exp_factory.register_config_factory("psanet_seg_scenes")
def scenes() -> config_definitions.ExperimentConfig:
    """A small PSANet on the synthetic scenes, as configs/scenes/psanet.yaml: minutes on two cores."""
    steps = 600 // 8
    optimizer = {"type": "adam", "adam": {}}
    data = {"aug_scale_min": 1.0, "aug_scale_max": 1.0, "rotate_probability": 0.0, "blur_probability": 0.0}
    config = _experiment("scenes", 161, ("training", "validation"), 8, steps, 3, optimizer, 3e-3, data)
    config.task.model.override({"blocks": [1, 1, 1, 1], "width": 16})
    config.task.base_size = 161
    config.trainer.override({"steps_per_loop": steps // 3, "checkpoint_interval": steps // 3})
    return config


def _of_the_paper(dataset, crop, images, epochs, splits):
    return _experiment(dataset, crop, splits, 16, images // 16, epochs, {"type": "psanet_sgd"}, 0.01, {})


def _experiment(dataset, crop, splits, batch_size, steps_per_epoch, epochs, optimizer, learning_rate, augmentation):
    size = [crop, crop]
    paths = [f"datasets/{dataset}-records/{split}-*.tfrecord" for split in splits]
    shared = {"output_size": size, "global_batch_size": batch_size}
    steps = epochs * steps_per_epoch
    return config_definitions.ExperimentConfig(
        task=PSANetTask(
            model=PSANetModel(num_classes=dataset_info(dataset).num_classes, input_size=[*size, 3]),
            train_data=PSANetData(input_path=paths[0], is_training=True, **shared, **augmentation),
            validation_data=PSANetData(input_path=paths[1], is_training=False, drop_remainder=False, **shared),
            evaluation=semantic_segmentation.Evaluation(report_train_mean_iou=False),
            dataset=dataset,
            # With the Garden's default its trainer does not get through a validation.
            allow_image_summary=False,
        ),
        trainer=config_definitions.TrainerConfig(
            steps_per_loop=min(100, steps_per_epoch),
            summary_interval=steps_per_epoch,
            checkpoint_interval=steps_per_epoch,
            train_steps=steps,
            validation_steps=-1,
            validation_interval=steps_per_epoch,
            best_checkpoint_export_subdir="best_ckpt",
            best_checkpoint_eval_metric="mean_iou",
            best_checkpoint_metric_comp="higher",
            optimizer_config=PSANetOptimization(
                {
                    "optimizer": optimizer,
                    "learning_rate": {
                        "type": "polynomial",
                        "polynomial": {
                            "initial_learning_rate": learning_rate,
                            "decay_steps": steps,
                            "end_learning_rate": 0.0,
                            "power": 0.9,
                        },
                    },
                }
            ),
        ),
        restrictions=["task.train_data.is_training != None", "task.validation_data.is_training != None"],
    )
