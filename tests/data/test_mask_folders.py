"""Folders of masks: which masks are of which images and classes, and what is refused."""

import numpy as np
import pytest
from image_forms import png
from label_forms import per_class
from labelled_scenes import COUNT, SIZE, boxes, photo, truth
from PIL import Image

from psanet_tf.data.importing import inspect_source
from psanet_tf.data.importing.class_files import read_class_files
from psanet_tf.data.importing.source import UNLABELLED
from psanet_tf.data.importing.where import Where


def grey(*modes):
    def make(root):
        for index, mode in enumerate(modes):
            (root / "images").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(root / f"images/p{index}.png")
            (root / "masks").mkdir(exist_ok=True)
            if mode == "pages":
                Image.new("L", (4, 4)).save(
                    root / "masks/p0.tif", save_all=True, append_images=[Image.new("L", (4, 4))]
                )
            elif mode == "deep":
                (root / f"masks/p{index}.png").write_bytes(png(np.full((4, 4, 3), 700), 16, 2))
            else:
                Image.new(mode, (4, 4)).save(root / f"masks/p{index}.tif")

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (grey("CMYK"), r"p0\.tif: a mask of mode CMYK has neither values nor colours of classes"),
        (grey("pages"), r"1 mask cannot be read: .*p0\.tif holds 2 pages or frames, one was expected"),
        (grey("deep"), r"p0\.png: colours of 16 bits, of which 8 would be lost"),
    ],
)
def test_masks_of_forms_without_a_sure_meaning(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        inspect_source(tmp_path)


@pytest.mark.parametrize("names", [("car", "train"), ("ground", "target")])
def test_classes_that_are_called_as_folders_are(tmp_path, names):
    for index in range(COUNT):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(photo(index)).save(tmp_path / f"images/p{index}.png")
        for value, name in enumerate(names, start=1):
            (tmp_path / "masks" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(truth(index) == value).save(tmp_path / f"masks/{name}/p{index}.png")
    source = inspect_source(tmp_path).source
    assert source.keys.names == names
    assert {image.split for image in source.images} == {None}


def test_masks_alone_in_folders_of_splits(tmp_path):
    for index, split in enumerate(("train", "val")):
        for folder, array in (("images", photo(index)), (f"masks/{split}", truth(index))):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"p{index}.png")
    source = inspect_source(tmp_path).source
    assert [image.split for image in source.images] == ["train", "val"]
    assert source.keys.kind == "value"


def test_pictures_of_masks_beside_them(tmp_path):
    for folder in ("images", "masks", "masks_color"):
        (tmp_path / folder).mkdir()
        Image.fromarray(truth(0)).save(tmp_path / folder / "p0.png")
    with pytest.raises(ValueError, match=r"p0\.png has two masks of 'mask': .*; --masks names the folder that counts"):
        inspect_source(tmp_path)
    assert len(inspect_source(tmp_path, Where(masks=tmp_path / "masks", images=tmp_path / "images")).source.images) == 1
    (tmp_path / "masks_color/p0.png").rename(tmp_path / "masks/p0_color.png")
    with pytest.raises(
        ValueError, match=r"p0_color\.png: the mask of one class must be 0 and one other value, this holds"
    ):
        inspect_source(tmp_path)


def test_palettes_beside_masks_that_contradict_each_other(tmp_path):
    for folder, color in (("a", "1,2,3"), ("b", "1,2,3")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "class_dict.csv").write_text(f"name,r,g,b\n{folder},{color}\n")
    with pytest.raises(ValueError, match=r"b/class_dict\.csv: colour #010203 is 'b', in .*a/class_dict\.csv it is 'a'"):
        read_class_files(tmp_path)


def test_two_masks_of_one_class(tmp_path):
    for path in ("images/p.png", "masks/p_road.png", "masks/road/p.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / path)
    with pytest.raises(ValueError, match=r"p\.png has two masks of 'road': "):
        inspect_source(tmp_path)


def test_pixels_of_three_classes_have_no_label_either(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images/p.png")
    for name in ("a", "b", "c"):
        (tmp_path / "masks" / name).mkdir(parents=True)
        Image.new("L", (4, 4), 255).save(tmp_path / f"masks/{name}/p.png")
    source = inspect_source(tmp_path, Where(overlap="ignore")).source
    codes = source.images[0].labels.codes((4, 4))
    assert {(*source.keys.names, UNLABELLED)[code] for code in np.unique(codes)} == {UNLABELLED}


def test_masks_for_each_class_have_no_values_to_choose(tmp_path):
    per_class("{name}/{image}.png")(tmp_path)
    (tmp_path / "colors.csv").write_text("road,0,0,1\n")
    for where, message in (
        (
            Where(labels="value"),
            "--labels: there is a mask for each class, of which all but 0 is the class, .*leave it",
        ),
        (Where(labels="colour", palette=tmp_path / "colors.csv"), "--labels and --palette: there .* leave them out"),
    ):
        with pytest.raises(ValueError, match=message):
            inspect_source(tmp_path, where)


def test_a_broken_json_beside_masks_is_named_and_passed_over(tmp_path):
    grey("L")(tmp_path)
    (tmp_path / "settings.json").write_text('{"a": ')
    inspection = inspect_source(tmp_path)
    assert len(inspection.source.images) == 1
    assert f"note: {tmp_path / 'settings.json'} is no JSON file: " in inspection.text()
    assert ": passed over" in inspection.text()
    (tmp_path / "masks/p0.tif").unlink()
    message = (
        r"no masks are found below it: .*; .*settings\.json is no JSON file: .*: if that is the annotations, export"
    )
    with pytest.raises(ValueError, match=message):
        inspect_source(tmp_path)
    with pytest.raises(ValueError, match=r"settings\.json is no JSON file"):
        inspect_source(tmp_path / "settings.json")


@pytest.mark.parametrize(("overlap", "name"), [("last", "road"), ("ignore", UNLABELLED)])
def test_masks_for_each_class_that_overlap(tmp_path, overlap, name):
    per_class("{name}/{image}.png", overlapping=True)(tmp_path)
    source = inspect_source(tmp_path, Where(overlap=overlap)).source
    for index in range(COUNT):
        (left, top, right, bottom), _ = boxes(index)
        on_road = np.zeros(SIZE, bool)
        on_road[top:bottom, left:right] = True
        expected = np.array([UNLABELLED, "road", "car"])[truth(index)]
        expected[(truth(index) == 2) & on_road] = name
        image = next(image for image in source.images if image.name == f"p{index}")
        names = np.array([*source.keys.names, UNLABELLED])
        assert np.array_equal(names[image.labels.codes(SIZE)], expected)
