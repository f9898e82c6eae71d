"""Images that cannot be read: counted and named, and errors of the input pipeline that say which it was."""

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from psanet_tf.config import DataSection
from psanet_tf.data.catalog import info_of
from psanet_tf.data.readers import encoded_example, holds_train_ids, list_examples, read_example

if TYPE_CHECKING:
    import tensorflow as tf

MARK = "cannot read example"
_SHOWN = 20


class UnreadableExamples:
    """What ``data.on_error: skip`` has passed over in one split; a pipeline fills it."""

    def __init__(self) -> None:
        import tensorflow as tf

        # A table, not a Python object: the pipeline must not call Python.
        self._table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, default_value=0)

    def add(self, index: "tf.Tensor") -> "tf.Operation":
        """In a pipeline: notes the example at this place of `list_examples`; returns an operation."""
        return self._table.insert(index, 1)

    def take_summary(self, data: DataSection, split: str) -> str | None:
        """Text that names what was skipped since the last call and says why, or None.

        Args:
            data, split: what the pipeline read.
        """
        keys = self._table.export()[0]
        self._table.remove(keys)
        indices = sorted(int(key) for key in keys)
        if not indices:
            return None
        examples, info = list_examples(data, split), info_of(data)
        lines = [f"skipped {len(indices)} of {len(examples)} examples of split {split!r} that cannot be read:"]
        lines += [f"  {_reason(examples[index], info)}" for index in indices[:_SHOWN]]
        if len(indices) > _SHOWN:
            lines.append(f"  and {len(indices) - _SHOWN} more")
        return "\n".join(lines)


@contextlib.contextmanager
def readable_pipeline_errors(data: DataSection) -> Iterator[None]:
    """Turns TensorFlow's report of an example that cannot be read into a ValueError that names the file and says why.

    Args:
        data: the `DataSection` of the pipelines used inside.

    Example:
        >>> with readable_pipeline_errors(config.data):
        ...     model.fit(training_dataset(config, 16), steps_per_epoch=100)
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(MARK + r"\W+(\d+)\W+of split\W+\[([^\]]*)\]", error.message)
        if found is None:
            raise
        example = list_examples(data, found.group(2))[int(found.group(1))]
        raise ValueError(_reason(example, info_of(data))) from error


def _reason(example, info):
    try:
        read_example(example, info)
    except (ValueError, OSError) as error:
        return str(error)
    return _reason_in_graph(example, info) or (
        f"{example.image_path} or {example.label_path}: could not be read then, but can be now; was it being written, "
        "or is it on a disk that fails now and then?"
    )


def _reason_in_graph(example, info):
    """What TensorFlow's decoders say; they are stricter than others about damaged files."""
    import tensorflow as tf

    from psanet_tf.data.decoding import LabelReader, decode_image

    labels = LabelReader(None if holds_train_ids(example) else info.label_rule)
    decoders = (lambda encoded: decode_image(encoded, images=info.images), labels.values)
    paths = (example.image_path, example.label_path)
    for path, encoded, decode in zip(paths, encoded_example(example), decoders, strict=True):
        try:
            decode(tf.constant(encoded))
        except tf.errors.OpError as error:
            return f"{path}: TensorFlow cannot read it: {error.message}"
    return None
