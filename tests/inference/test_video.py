"""Videos in, labelled videos out."""

import numpy as np
import pytest

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.inference.video import label_video

av = pytest.importorskip("av")
INFO = DatasetInfo("two", ("dark", "bright"), np.array([[255, 0, 0], [0, 0, 255]]))


class Brightness:
    def labels(self, image):
        return (image.mean(-1) > 127).astype(np.uint8)


def _write_video(path, frames, rate=10):
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        target.mux(stream.encode(None))


def test_frames_keep_their_number_size_and_times(tmp_path):
    frames = [np.full((48, 64, 3), 0 if index < 5 else 255, "uint8") for index in range(10)]
    _write_video(tmp_path / "in.mp4", frames)
    assert label_video(Brightness(), tmp_path / "in.mp4", tmp_path / "out.mp4", INFO) == 10
    with av.open(str(tmp_path / "out.mp4")) as result:
        stream = result.streams.video[0]
        decoded = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in result.decode(stream)]
    assert stream.codec_context.name == "h264"
    assert [time for time, _ in decoded] == pytest.approx([index / 10 for index in range(10)], abs=1e-3)
    # The right side is free of the legend: dark frames turn red, bright ones blue.
    first, last = decoded[0][1][:20, 40:].mean((0, 1)), decoded[9][1][:20, 40:].mean((0, 1))
    assert first[0] > first[2] + 50
    assert last[2] > last[0] + 50


def test_odd_sizes_grow_by_a_pixel(tmp_path):
    class One:
        def labels(self, image):
            return np.zeros(image.shape[:2], np.uint8)

    # FFV1 takes odd sizes.
    with av.open(str(tmp_path / "in.mkv"), "w") as target:
        stream = target.add_stream("ffv1", rate=5)
        stream.height, stream.width, stream.pix_fmt = 21, 33, "bgr0"
        target.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((21, 33, 3), "uint8"), format="rgb24")))
        target.mux(stream.encode(None))
    label_video(One(), tmp_path / "in.mkv", tmp_path / "out.mp4", INFO)
    with av.open(str(tmp_path / "out.mp4")) as result:
        assert (result.streams.video[0].height, result.streams.video[0].width) == (22, 34)


def test_what_is_no_video_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "in.mp4").write_text("no video")
    with pytest.raises(ValueError, match="in.mp4 is not a readable video"):
        label_video(Brightness(), tmp_path / "in.mp4", tmp_path / "out.mp4", INFO)
    assert [file.name for file in tmp_path.iterdir()] == ["in.mp4"]
