"""Labels every image of a split, on all devices, and counts what the scores are summed from."""

from collections.abc import Sequence

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.fingerprint import Fingerprint
from psanet_tf.data.layouts import Example
from psanet_tf.data.readers import read_example
from psanet_tf.evaluation.boundary import boundary_counts
from psanet_tf.evaluation.results import EvaluationFolder, ImageRecord
from psanet_tf.evaluation.submission import save_submission
from psanet_tf.inference.labeler import GivesProbabilities, LabelsImages
from psanet_tf.inference.parallel import on_all_devices
from psanet_tf.metrics import confusion_matrix
from psanet_tf.reliability import Reliability
from psanet_tf.visualization.colors import save_label_png


def evaluate(
    labelers: Sequence[LabelsImages],
    examples: Sequence[Example],
    info: DatasetInfo,
    folder: EvaluationFolder,
    fingerprint: Fingerprint,
    submission: bool = False,
) -> tuple[dict[str, ImageRecord], dict[str, str]]:
    """Scores the images that `folder` has no record of yet.

    Args:
        labelers: one object per device, each with ``labels([H, W, C]) -> uint8 [H, W]``; every one works on
            an image of its own.
        examples: list of `Example`.
        info: DatasetInfo.
        folder: `EvaluationFolder` that was started.
        fingerprint: Fingerprint of the examples; what is read is noted as what it says.
        submission: also write predictions as the dataset's test server takes them.

    Returns:
        (records, failures): {name: ImageRecord} of the examples that are finished, and {name: message} of those
        that could not be read.
    """
    finished = folder.records()
    failures = {}

    def work(labeler, example):
        return _score(labeler, example, info, folder, fingerprint.images[example.name], submission)

    if submission:
        for name in (example.name for example in examples if example.name in finished):
            # Where the images were scored before anybody asked for these files.
            if not folder.submission_file(name).is_file():
                save_submission(folder.submission_file(name), folder.read_prediction(name), info)
    waiting = [example for example in examples if example.name not in finished]
    for example, result in on_all_devices(labelers, waiting, work, "evaluating"):
        if isinstance(result, str):
            failures[example.name] = result
            continue
        folder.add(result)
        finished[example.name] = result
    return {example.name: finished[example.name] for example in examples if example.name in finished}, failures


def _score(labeler, example, info, folder, marks, submission):
    """ImageRecord, or the message of why the image could not be read."""
    try:
        image, label = read_example(example, info)
    except (ValueError, OSError) as error:
        return str(error)
    reliability = None
    if isinstance(labeler, GivesProbabilities):
        prediction, confidence = labeler.labels_and_confidence(image)
        counts = label != info.ignore_label
        reliability = Reliability.measured(confidence[counts], prediction[counts] == label[counts])
    else:
        prediction = labeler.labels(image)
    save_label_png(folder.label_file(example.name), prediction)
    save_label_png(folder.color_file(example.name), prediction, info.colors)
    if submission:
        save_submission(folder.submission_file(example.name), prediction, info)
    else:
        folder.submission_file(example.name).unlink(missing_ok=True)  # of an earlier prediction
    return ImageRecord(
        name=example.name,
        size=label.shape,
        confusion=confusion_matrix(prediction, label, info.num_classes, info.ignore_label),
        boundary=boundary_counts(prediction, label, info.num_classes, info.ignore_label),
        digests=tuple(mark.digest for mark in marks),
        reliability=reliability,
    )
