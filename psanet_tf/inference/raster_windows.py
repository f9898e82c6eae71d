"""Which labelers can see a large picture by windows, and how."""

from psanet_tf.inference.labeler import LabelsImages
from psanet_tf.inference.mmseg_protocol import MMSegProtocol
from psanet_tf.inference.model_file import ModelFileLabeler
from psanet_tf.inference.protocols import OnDevice
from psanet_tf.inference.sliding_window import SlidingWindow


def window_of(labeler: LabelsImages) -> SlidingWindow:
    """The sliding window by which a labeler sees a raster, at the size that the raster has.

    Of the paper's protocol it is its own. MMSegmentation's, which fits a whole image into its scale, becomes a window
    of its crop, or else of the scale's short side, with overlaps as the paper has them.

    Args:
        labeler: of `Segmenter.labelers`.

    Raises:
        ValueError: a SavedModel or a served model, or one that sees images whole.
    """
    if isinstance(labeler, (OnDevice, ModelFileLabeler)):
        return window_of(labeler.labeler)
    if isinstance(labeler, SlidingWindow):
        return labeler
    if isinstance(labeler, MMSegProtocol):
        return SlidingWindow(
            labeler.predict,
            labeler.num_classes,
            labeler.crop_size or (min(labeler.scale),) * 2,
            flip=labeler.flip,
            batch_size=labeler.batch_size,
            images=labeler.images,
        )
    raise ValueError(
        "a large picture (GeoTIFF, slide) is seen in windows, which neither an exported SavedModel or a served model "
        "nor --whole does: load the weights that it was made of, and leave out --whole"
    )


def device_of(labeler: LabelsImages) -> str | None:
    """The device that a labeler works on; None where that is not settled."""
    return labeler.device if isinstance(labeler, OnDevice) else None
