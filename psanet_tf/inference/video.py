"""Labels the frames of a video."""

import os
from pathlib import Path
from types import ModuleType

import numpy as np

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.extras import needs_extra
from psanet_tf.files import atomic_file
from psanet_tf.inference.labeler import LabelsImages
from psanet_tf.progress import track
from psanet_tf.visualization.overlay import overlay


def label_video(labeler: LabelsImages, path: str | os.PathLike, out: str | os.PathLike, info: DatasetInfo) -> int:
    """Writes a video with every frame's labels laid over it.

    Args:
        labeler: of photographs; object with ``labels(uint8 [H, W, 3]) -> uint8 [H, W]``.
        path: a video that FFmpeg reads.
        out: file to write, ``.mp4`` (H.264). Frames keep their times; sound is left out; odd heights and widths grow
            by one pixel, which the format needs.
        info: DatasetInfo.

    Returns:
        number of frames.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: the file is no video, or has no frames; the network labels no photographs; nothing is written then.
    """
    if not info.images.is_photograph:
        raise ValueError(f"{path}: a video holds photographs, the network labels images of {info.images.in_words()}")
    av = pyav()
    frames = 0
    try:
        with av.open(str(path)) as source, atomic_file(out, suffix=".mp4") as temporary:
            if not source.streams.video:
                raise ValueError(f"{path} holds no video")
            stream = source.streams.video[0]
            with av.open(str(temporary), "w", format="mp4") as target:
                encoder = None
                for frame in track(source.decode(stream), f"labelling {Path(path).name}", stream.frames or None):
                    image = np.rot90(frame.to_ndarray(format="rgb24"), (frame.rotation // 90) % 4)
                    image = np.ascontiguousarray(image)
                    labelled = overlay(image, labeler.labels(image), info.colors, info.class_names)
                    if encoder is None:
                        encoder = _encoder(target, stream, labelled.shape[:2])
                    new = av.VideoFrame.from_ndarray(_even(labelled), format="rgb24")
                    new.pts, new.time_base = frame.pts, frame.time_base
                    target.mux(encoder.encode(new))
                    frames += 1
                if encoder is None:
                    raise ValueError(f"{path} holds no frames")
                target.mux(encoder.encode(None))
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} is not a readable video: {error.strerror or error}") from None
    return frames


def _encoder(target, stream, size):
    encoder = target.add_stream("libx264", rate=stream.average_rate or stream.guessed_rate or 25)
    encoder.height, encoder.width = (length + length % 2 for length in size)
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = stream.time_base
    # Slow changes of colour are what a label video shows: keep them clean.
    encoder.options = {"crf": "20"}
    return encoder


def _even(image):
    return np.pad(image, [(0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)], mode="edge")


def pyav() -> ModuleType:
    """The module `av`.

    Raises:
        ImportError: PyAV is not installed.
    """
    with needs_extra("video", "labelling videos"):
        import av
    return av
