"""The augmentation of the paper's implementation as a parser of the Garden's."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from official.vision.configs import semantic_segmentation
from official.vision.dataloaders import parser

from psanet_tf.config import AugmentationSection
from psanet_tf.data.augmentation import augmented_difference, draw_augmentation
from psanet_tf.data.catalog import IGNORE_LABEL, label_value_table, numbered_classes
from psanet_tf.data.channels import per_channel
from psanet_tf.data.decoding import LabelTable, decode_image, label_values
from psanet_tf.data.image_format import ImageFormat
from psanet_tf.data.normalization import MEAN, STD
from psanet_tf.data.records import IMAGE_KEY, LABEL_KEY
from psanet_tf.garden.configs import PSANetData

_Labels = dict[str, tf.Tensor]


class PSANetParser(parser.Parser):
    """Takes what the Garden's segmentation decoder gives; `parse_fn(is_training)` is what its readers ask for.

    Images are decoded as everywhere in this package, which differs from the Garden's parser for JPEG by up to ten grey
    levels (TensorFlow's default there is the faster transform).

    Args:
        params: PSANetData.
        num_classes: labels are 0 to `num_classes` - 1, or 255 for none.

    Raises:
        ValueError: rows and columns of the crops are not given, or augmentation out of its range.

    The parsed image is float [h, w, C] of `params.dtype`, normalized; labels are a dict of "masks" float32 [h, w, 1],
    "valid_masks" bool [h, w, 1] and "image_info" float32 [4, 2]: the image's size, the crop's, the scale, the offset.
    """

    def __init__(self, params: PSANetData, num_classes: int) -> None:
        if len(params.output_size) != 2:
            raise ValueError(f"output_size must be rows and columns of the crops, got {params.output_size}")
        flip = 0.5 if params.aug_rand_hflip else 0.0
        self._augmentation = AugmentationSection(
            scale=(params.aug_scale_min, params.aug_scale_max),
            rotate_degrees=params.rotate_degrees,
            rotate_probability=params.rotate_probability,
            blur_probability=params.blur_probability,
            flip_probability=flip,
        )
        self._crop_size = tuple(params.output_size)
        self._dtype = params.dtype
        self._seed = params.seed
        self._image_key = params.image_feature.feature_name
        self._images = image_format(params.image_feature)
        info = numbered_classes(num_classes)
        self._labels = LabelTable(info, label_value_table(info, train_ids=True))

    def _parse_train_data(self, data):
        image, values = self._decoded(data)
        seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32, seed=self._seed)
        drawn = draw_augmentation(seed, tf.shape(values), self._crop_size, self._augmentation)
        return self._cropped(image, values, drawn._asdict())

    def _parse_eval_data(self, data):
        image, values = self._decoded(data)
        offset = tf.maximum(tf.shape(values) - tf.constant(self._crop_size), 0) // 2
        unchanged = {"scale": 1.0, "angle_degrees": 0.0, "blur": False, "flip": False, "offset_yx": offset}
        return self._cropped(image, values, unchanged)

    def _decoded(self, data):
        return decode_image(data[self._image_key], images=self._images), label_values(data[LABEL_KEY])

    def _cropped(self, image, values, parameters):
        difference, values = augmented_difference(
            image,
            values,
            **parameters,
            crop_size=self._crop_size,
            fill=self._images.fill,
            ignore_label=self._labels.ignored_value,
        )
        masks = tf.cast(self._labels.train_ids(values), tf.float32)[..., None]
        scale = tf.cast(parameters["scale"], tf.float32)
        sizes = [tf.shape(image)[:2], self._crop_size, [scale, scale], parameters["offset_yx"]]
        labels = {
            "masks": masks,
            "valid_masks": masks != IGNORE_LABEL,
            "image_info": tf.stack([tf.cast(size, tf.float32) for size in sizes]),
        }
        return tf.cast(per_channel(tf.divide, difference, self._images.scale), self._dtype), labels


def image_format(feature: semantic_segmentation.DenseFeatureConfig) -> ImageFormat:
    """What the Garden's configuration says of images, as this package says it.

    Raises:
        ValueError: an image that is not the one of `psanet data to-tfrecord`, or statistics that do not fit.
    """
    if feature.feature_name != IMAGE_KEY:
        raise ValueError(f"image_feature.feature_name must be {IMAGE_KEY}, got {feature.feature_name}")
    mean, std = (tuple(float(number) for number in numbers) for numbers in (feature.mean, feature.stddev))
    usual = feature.num_channels == 3 and np.allclose([mean, std], [MEAN, STD], rtol=1e-6)
    return ImageFormat() if usual else ImageFormat(feature.num_channels, "uint8", mean, std)


def full_batches(batch_size: int) -> Callable[[tf.data.Dataset, tf.distribute.InputContext | None], tf.data.Dataset]:
    """A `transform_and_batch_fn` of the Garden's reader: batches of one size, without losing an image.

    The last batch is filled up with images of the mean colour whose labels are all ignored: no replica is left without
    images, with which some kernels cannot do.

    Args:
        batch_size: of all replicas.
    """

    def transform(dataset, context=None):
        share = context.get_per_replica_batch_size(batch_size) if context else batch_size
        shares = context.num_replicas_in_sync // context.num_input_pipelines if context else 1

        def filled(image, labels):
            missing = share * shares - tf.shape(image)[0]

            def fill(tensor, value):
                fills = tf.fill(tf.concat([[missing], tf.shape(tensor)[1:]], 0), tf.cast(value, tensor.dtype))
                return tf.reshape(tf.concat([tensor, fills], 0), [shares, share, *tensor.shape[1:]])

            masks, valid = fill(labels["masks"], IGNORE_LABEL), fill(labels["valid_masks"], False)
            return fill(image, 0), {"masks": masks, "valid_masks": valid, "image_info": fill(labels["image_info"], 1)}

        return dataset.batch(share * shares).map(filled, num_parallel_calls=tf.data.AUTOTUNE).unbatch()

    return transform
