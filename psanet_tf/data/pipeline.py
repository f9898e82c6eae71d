"""tf.data pipelines for training and for scoring during training.

Which images are in a batch, and what augmentation does to them, is a function of (seed, epoch, position in the
epoch) and of nothing else: the number of threads or workers does not matter, and training resumes in the middle of an
epoch with the batches that would have come.
"""

import numpy as np
import tensorflow as tf

from psanet_tf.config import Config
from psanet_tf.cores import usable_cores
from psanet_tf.data.augmentation import augmented_difference, draw_augmentation
from psanet_tf.data.catalog import IGNORE_LABEL, info_of, label_value_table
from psanet_tf.data.channels import per_channel
from psanet_tf.data.decoding import LabelReader, LabelTable, decode_image, read_record
from psanet_tf.data.plain_copies import graph_readable
from psanet_tf.data.readers import has_train_ids, list_examples
from psanet_tf.data.unreadable import MARK, UnreadableExamples

# Functions of a pipeline are made of TensorFlow operations: to rewrite Python's statements takes AutoGraph a while.
_as_it_is = tf.autograph.experimental.do_not_convert
_ORDER_STREAM, _AUGMENTATION_STREAM, _SUBSTITUTE_STREAM = 0, 1, 2
_MAX_SUBSTITUTES = 100
_PREFETCHED = 2  # batches


def steps_per_epoch(config: Config, global_batch_size: int) -> int:
    """Whole batches in one pass over the training images; which ones are left over changes from epoch to epoch.

    Raises:
        ValueError: fewer images than one batch.
        FileNotFoundError: no such data.
    """
    return _steps(config, list_examples(config.data, config.data.train_split), global_batch_size)


def training_dataset(
    config: Config,
    global_batch_size: int,
    start_epoch: int = 0,
    start_step: int = 0,
    num_workers: int = 1,
    worker_index: int = 0,
    unreadable: UnreadableExamples | None = None,
) -> tf.data.Dataset:
    """Shuffled, augmented, normalized batches without end.

    Args:
        config: Config; `data`, `train.seed` and `model.aux_head` are read.
        global_batch_size: images per step over all workers and replicas.
        start_epoch: the first batch is the one that a run from the beginning gives in this epoch ...
        start_step: ... at this step; steps beyond the epoch's last belong to the next.
        num_workers: how many processes share each batch.
        worker_index: which of them this is; it gets that consecutive part of every batch.
        unreadable: `UnreadableExamples`, which notes what ``data.on_error: skip`` passes over. A random other
            image takes the place of one that is skipped.

    Returns:
        tf.data.Dataset of (image, {"logits": label, "aux_logits": label}), or (image, label) without an auxiliary head,
        image float32 [B, h, w, C] normalized,
        label uint8 [B, h, w] train ids, B = global_batch_size / num_workers, h and w from ``data.crop_size``.

    Raises:
        ValueError: fewer images than one batch, a batch that cannot be shared equally.
        FileNotFoundError: no such data.
    """
    if global_batch_size % num_workers:
        raise ValueError(f"train.batch_size: {global_batch_size} cannot be shared equally by {num_workers} workers")
    if not 0 <= worker_index < num_workers:
        raise ValueError(f"worker_index: must be 0..{num_workers - 1}, got {worker_index}")
    data = config.data
    examples = list_examples(data, data.train_split)
    steps = _steps(config, examples, global_batch_size)
    share = global_batch_size // num_workers
    start_epoch, start_step = start_epoch + start_step // steps, start_step % steps

    def epoch_examples(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(examples), dtype=tf.int64), seed=_seed(config, _ORDER_STREAM, epoch), alg="philox"
        )

        def mine(per_example):
            parts = tf.reshape(per_example[: steps * global_batch_size], [steps, num_workers, share])
            return tf.reshape(parts[:, worker_index], [-1])[tf.where(epoch == start_epoch, start_step * share, 0) :]

        positions = mine(tf.range(len(examples), dtype=tf.int64))
        return tf.data.Dataset.from_tensor_slices((tf.fill(tf.shape(positions), epoch), positions, mine(order)))

    source = _Source(data, data.train_split, examples)
    crop_size = data.crop_size

    def augmented(index, epoch, position):
        image, values = source.decode(index)
        seed = _seed(config, _AUGMENTATION_STREAM, epoch, position)
        parameters = draw_augmentation(seed, tf.shape(values), crop_size, data.augmentation, values, source.class_table)
        return source.crop(image, values, crop_size, parameters._asdict())

    def substitute(epoch, position, attempt):
        seed = _seed(config, _SUBSTITUTE_STREAM, epoch, position, attempt)
        return tf.random.stateless_uniform([], seed, maxval=len(examples), dtype=tf.int64, alg="philox")

    unreadable = unreadable or UnreadableExamples()

    def example(epoch, position, index):
        if data.on_error == "raise":
            image, label, readable = _attempt(augmented, source.blank, index, epoch, position)
            return source.require(readable, index, image, label)
        return _first_readable(augmented, substitute, unreadable, source.blank, epoch, position, index)

    epochs = tf.data.Dataset.range(start_epoch, np.iinfo(np.int64).max)
    dataset = epochs.flat_map(_as_it_is(epoch_examples)).apply(
        tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    )
    return _batches(dataset, example, config, share)


def evaluation_dataset(
    config: Config,
    batch_size: int,
    unreadable: UnreadableExamples | None = None,
    num_workers: int = 1,
    worker_index: int = 0,
) -> tf.data.Dataset:
    """One pass over the validation images, each cut or padded about its middle to ``data.crop_size``.

    For a quick score during training; the protocol of the paper is `psanet evaluate`. The last batch is filled up
    with images of the mean colour whose labels are all ignored, so that no image is lost and all batches have one
    size. Such an image also stands for one that ``data.on_error: skip`` passes over.

    Args:
        config: Config; `data` is read.
        batch_size: images per step over all workers and replicas.
        unreadable, num_workers, worker_index: as of `training_dataset`.

    Returns:
        tf.data.Dataset as of `training_dataset`, with B = batch_size / num_workers.

    Raises:
        ValueError, FileNotFoundError: no such data.
    """
    data = config.data
    examples = list_examples(data, data.val_split)
    source = _Source(data, data.val_split, examples)
    unreadable = unreadable or UnreadableExamples()
    crop_size = data.crop_size
    batches = -(-len(examples) // batch_size)

    def middle(index):
        image, values = source.decode(index)
        offset = tf.maximum(tf.shape(values) - tf.constant(crop_size), 0) // 2
        unchanged = {"scale": 1.0, "angle_degrees": 0.0, "blur": False, "flip": False, "offset_yx": offset}
        return source.crop(image, values, crop_size, unchanged)

    def example(index):
        image, label, readable = _attempt(middle, source.blank, index)
        if data.on_error == "raise":
            return source.require(readable, index, image, label)
        with tf.control_dependencies([tf.cond(readable, tf.no_op, lambda: unreadable.add(index))]):
            return tf.identity(image), tf.identity(label)

    def example_or_blank(index):
        return tf.cond(index < len(examples), lambda: example(index), source.blank)

    share = batch_size // num_workers
    numbers = tf.data.Dataset.range(batches * share)
    numbers = numbers.map(
        _as_it_is(lambda number: number // share * batch_size + worker_index * share + number % share)
    )
    return _batches(numbers, example_or_blank, config, share)


def _steps(config, examples, global_batch_size):
    if len(examples) < global_batch_size:
        raise ValueError(
            f"train.batch_size: split {config.data.train_split!r} holds {len(examples)} images, "
            f"fewer than one batch of {global_batch_size}"
        )
    return len(examples) // global_batch_size


def _seed(config, stream, *keys):
    """A seed of its own for each use and key."""
    seed = tf.constant([config.train.seed, stream], tf.int64)
    for key in keys:
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(key, tf.int64), alg="philox")
    return seed


def _batches(dataset, example, config, batch_size):
    data = config.data

    def with_labels(*key):
        image, label = example(*key)
        return image, {"logits": label, "aux_logits": label} if config.model.aux_head else label

    workers = data.workers or usable_cores()
    dataset = dataset.map(_as_it_is(with_labels), num_parallel_calls=workers, deterministic=True)
    options = tf.data.Options()
    # There is nothing to rewrite: searching the graph for it takes longer than to start the pipeline.
    options.experimental_optimization.apply_default_optimizations = False
    # Nor to tune. TensorFlow's thread for that sleeps for longer and longer, up to a minute, and may miss being woken
    # to end (it looks whether it is cancelled just before that is noted): dropping an iterator waits until it wakes.
    options.autotune.enabled = False
    return dataset.batch(batch_size, drop_remainder=True).prefetch(_PREFETCHED).with_options(options)


class _Source:
    """Reads, decodes and cuts the examples of one split."""

    def __init__(self, data, split, examples):
        self.split = split
        self.info = info_of(data)
        self._crop_size = data.crop_size
        self._images = self.info.images
        self._mean, self._std = self._images.fill, self._images.scale
        self._records = data.format == "tfrecord"
        paths = [example.image_path for example in examples]
        with tf.init_scope():
            self._image_paths = tf.constant([str(path) for path in paths])
            self._readable_paths = (
                self._image_paths if self._records else tf.constant(graph_readable(paths, self._images))
            )
            self._label_paths = tf.constant([str(example.label_path) for example in examples])
            if self._records:
                self._offsets = tf.constant([example.offset for example in examples], tf.int64)
        first = examples[0].label_path
        train_ids = self._records or has_train_ids(first)
        self._label_files = LabelReader(None if train_ids else self.info.label_rule)
        self._labels = LabelTable(self.info, label_value_table(self.info, train_ids))

    def decode(self, index):
        """[H, W, C] and uint8 [H, W], values as stored."""
        if self._records:
            image, label = read_record(self._image_paths[index], self._offsets[index])
        else:
            image, label = tf.io.read_file(self._readable_paths[index]), tf.io.read_file(self._label_paths[index])
        values = self._labels.stored(self._label_files.values(label))
        return decode_image(image, images=self._images), values

    def crop(self, image, values, crop_size, parameters):
        """float32 [h, w, C], normalized, and uint8 [h, w], train ids."""
        difference, values = augmented_difference(
            image, values, **parameters, crop_size=crop_size, fill=self._mean, ignore_label=self._labels.ignored_value
        )
        return per_channel(tf.divide, difference, self._std), self._labels.train_ids(values)

    @property
    def class_table(self):
        """uint8 [256], the train id of each value as stored."""
        return self._labels.table

    def blank(self):
        """An image of the mean colour whose labels are all ignored."""
        pixels = tf.zeros((*self._crop_size, self._images.channels))
        return pixels, tf.fill(self._crop_size, tf.constant(IGNORE_LABEL, tf.uint8))

    def require(self, readable, index, image, label):
        message = [MARK, index, "of split", self.split, self._image_paths[index], self._label_paths[index]]
        with tf.control_dependencies([tf.debugging.Assert(readable, message)]):
            return tf.identity(image), tf.identity(label)


def _attempt(function, blank, *key):
    """(image, label, whether it worked): a blank image if `function` runs into an error.

    TensorFlow has no operation that catches errors, but a dataset can leave out elements that have one.
    """
    tried = tf.data.Dataset.from_tensors(key).map(_as_it_is(lambda *key: (*function(*key), True)))
    otherwise = tf.data.Dataset.from_tensors((*blank(), False))
    return tried.ignore_errors(log_warning=False).concatenate(otherwise).take(1).get_single_element()


def _first_readable(augmented, substitute, unreadable, blank, epoch, position, index):
    """The example at `index`, or else a random other one."""

    def next_attempt(attempt, index, *_):
        image, label, readable = _attempt(augmented, blank, index, epoch, position)
        with tf.control_dependencies([tf.cond(readable, tf.no_op, lambda: unreadable.add(index))]):
            return attempt + 1, substitute(epoch, position, attempt), image, label, readable

    start = (tf.constant(0, tf.int64), index, *blank(), tf.constant(False))
    *_, image, label, readable = tf.while_loop(
        lambda attempt, index, image, label, readable: ~readable & (attempt < _MAX_SUBSTITUTES), next_attempt, start
    )
    message = [f"{_MAX_SUBSTITUTES} random images in turn could not be read"]
    with tf.control_dependencies([tf.debugging.Assert(readable, message)]):
        return tf.identity(image), tf.identity(label)
