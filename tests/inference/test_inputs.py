"""What `psanet predict` takes for what was written, and what it says it passes over."""

import numpy as np
import pytest
from PIL import Image

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.inference.inputs import find_inputs


def _save(path, array=None, **arguments):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), "uint8") if array is None else array).save(path, **arguments)
    return path


def _paths(found, root):
    return [file.path.relative_to(root).as_posix() for file in found.files]


def test_inputs_may_be_files_folders_and_patterns(tmp_path):
    image = np.zeros((4, 4, 3), "uint8")
    for name in ("a/one.png", "a/two.jpg", "b/one.png", "b/three.PNG", "a/note.txt", "clip.mp4"):
        path = tmp_path / name
        if path.suffix in (".txt", ".mp4"):
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text("text")
        else:
            _save(path, image)
    inputs = [tmp_path / "a", str(tmp_path / "b" / "*"), tmp_path / "clip.mp4", tmp_path / "a" / "one.png"]
    found = find_inputs(inputs, tmp_path / "out").files
    assert [file.path.relative_to(tmp_path).as_posix() for file in found] == [
        "a/one.png",
        "a/two.jpg",
        "b/one.png",
        "b/three.PNG",
        "clip.mp4",
    ]
    names = [file.name for file in found]
    assert names[1] == "two"
    assert len(set(names)) == 5
    assert names[0].endswith("a_one.png")
    assert names[2].endswith("b_one.png")


def test_equal_stems_in_one_folder_keep_their_suffixes(tmp_path):
    for name in ("x.png", "x.jpg", "y.png"):
        _save(tmp_path / name, np.zeros((4, 4, 3), "uint8"))
    assert [file.name for file in find_inputs([tmp_path], "out").files] == ["x.jpg", "x.png", "y"]


@pytest.mark.parametrize("text", ["none.png", "*.png", "."])
def test_inputs_without_images(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        find_inputs([text], "out")


def test_results_of_an_earlier_call_are_not_labelled(tmp_path):
    _save(tmp_path / "photos/a.jpg")
    out = tmp_path / "photos/out"
    for folder in ("labels", "overlays", "side_by_side"):
        _save(out / folder / "a.png")
    found = find_inputs([tmp_path / "photos" / "**"], out)
    assert _paths(found, tmp_path) == ["photos/a.jpg"]
    assert [note.what for note in found.notes] == [f"3 results of an earlier call in {out} passed over"]
    # Results may lie beside the images.
    _save(tmp_path / "photos/labels/a.png")
    found = find_inputs([tmp_path / "photos"], tmp_path / "photos")
    assert _paths(found, tmp_path) == ["photos/a.jpg"]
    with pytest.raises(ValueError, match="holds only results in"):
        find_inputs([out / "labels"], out)
    with pytest.raises(ValueError, match="a.png lies among the results in .*: choose another folder"):
        find_inputs([out / "labels" / "a.png"], out)
    # Label images of another call are images like others.
    assert len(find_inputs([out / "labels"], tmp_path / "other").files) == 1


def test_what_is_passed_over_is_named(tmp_path):
    for name in ("a.jpg", "._a.jpg", "below/deeper/b.png", "empty/note.txt"):
        _save(tmp_path / name) if not name.endswith(".txt") else (tmp_path / name).parent.mkdir()
    (tmp_path / "raw.dng").write_bytes(b"x")
    found = find_inputs([tmp_path], "out")
    assert _paths(found, tmp_path) == ["a.jpg"]
    folders, files = found.notes
    assert (folders.what, folders.where) == ("images in 1 folder below passed over", (str(tmp_path / "below"),))
    assert files.where == (str(tmp_path / "._a.jpg"), str(tmp_path / "raw.dng"))
    assert _paths(find_inputs([tmp_path / "**"], "out"), tmp_path) == ["a.jpg", "below/deeper/b.png"]
    with pytest.raises(FileNotFoundError, match=r"but in folders below, e\.g\. .*deeper: give '.*below/\*\*'"):
        find_inputs([tmp_path / "below"], "out")


def test_of_animations_the_first_frame_is_taken_and_said(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "green", "blue")]
    for name in ("moving.gif", "pages.tif", "moving.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.gif")
    found = find_inputs([tmp_path], "out", PHOTOGRAPHS)
    assert len(found.files) == 4
    (note,) = found.notes
    assert note.what == "of 3 images with several frames or pages the first one is labelled"
    assert note.where == tuple(f"{tmp_path / name}: 3 frames" for name in ("moving.gif", "moving.png", "pages.tif"))


@pytest.mark.parametrize(
    ("address", "how"),
    [
        ("gs://bucket/a.jpg", "gcloud storage cp gs://bucket/a.jpg ."),
        ("s3://bucket/a.jpg", "aws s3 cp s3://bucket/a.jpg ."),
        ("https://example.org/a.jpg", "curl -O https://example.org/a.jpg"),
    ],
)
def test_addresses_are_refused_by_name(address, how):
    with pytest.raises(ValueError, match="is an address: only files of this machine are read") as error:
        find_inputs([address], "out")
    assert address in str(error.value)
    assert how in str(error.value)


def test_what_is_taken_of_a_folder_depends_on_the_images(tmp_path):
    for name in ("a.png", "b.npy", "c.webp", "d.tif"):
        (tmp_path / name).touch()

    def taken(*images):
        return [file.path.name for file in find_inputs([tmp_path], "out", *images).files]

    assert taken(PHOTOGRAPHS) == ["a.png", "c.webp", "d.tif"]
    assert taken(ImageFormat(12, "uint16")) == ["a.png", "b.npy", "d.tif"]
    assert taken() == ["a.png", "b.npy", "c.webp", "d.tif"]
