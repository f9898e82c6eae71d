"""More datasets in their owners' exact layouts, of which label files hold no train ids."""

import numpy as np
import pytest
from eager_pipeline import pipeline_labels
from PIL import Image

from psanet_tf.config.data import DataSection
from psanet_tf.data.catalog import dataset_info, info_of
from psanet_tf.data.checking import check_splits
from psanet_tf.data.layouts import listing_warnings
from psanet_tf.data.readers import list_examples, read_example

SIZE = (9, 17)


def write(root, image, label, values, palette=None):
    """An image, and labels that begin with these values, or with these colours."""
    pixels = np.resize(np.array(values, np.uint8), (*SIZE, 3) if np.ndim(values) == 2 else SIZE)
    picture = Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(np.asarray(palette, np.uint8).tobytes())
    for path, array in ((image, Image.new("RGB", SIZE[::-1], tuple(pixels.ravel()[:3].tolist()))), (label, picture)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        array.save(root / path)


def read(root, dataset):
    """(names, train ids of the first pixels of each image), equal from files and in the pipeline."""
    data = DataSection(dataset=dataset, root=str(root), crop_size=SIZE)
    examples = list_examples(data, data.val_split)
    labels = [read_example(example, info_of(data))[1] for example in examples]
    assert np.array_equal(pipeline_labels(data), labels)
    return [example.name for example in examples], [label.ravel()[:4].tolist() for label in labels]


@pytest.mark.parametrize(
    ("dataset", "expected"), [("pascal_context59", [255, 0, 58, 255]), ("pascal_context60", [0, 1, 59, 0])]
)
def test_pascal_context(tmp_path, dataset, expected):
    lists = tmp_path / "ImageSets/SegmentationContext"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2008_000002\n2008_000003\n")
    for name in ("2008_000002", "2008_000003"):
        write(tmp_path, f"JPEGImages/{name}.jpg", f"SegmentationClassContext/{name}.png", [0, 1, 59])
    names, labels = read(tmp_path, dataset)
    assert names == ["2008_000002", "2008_000003"]
    assert labels == [expected] * 2
    info = dataset_info(dataset)
    assert info.class_names[-1] == "wood"
    assert info.class_names[0] == ("aeroplane" if dataset == "pascal_context59" else "background")
    with pytest.raises(FileNotFoundError, match=r"no list .*train\.txt \(there are val\)"):
        list_examples(DataSection(dataset=dataset, root=str(tmp_path)), "train")
    (tmp_path / "ImageSets").rename(tmp_path / "Sets")
    with pytest.raises(FileNotFoundError, match=r"ImageSets.SegmentationContext .*pascal_context\.py writes it"):
        list_examples(DataSection(dataset=dataset, root=str(tmp_path)), "val")


def test_coco_stuff(tmp_path):
    for name, values in (("000000000139", [0, 10, 12, 181]), ("000000000285", [255, 24, 26, 91])):
        write(tmp_path, f"images/val2017/{name}.jpg", f"annotations/val2017/{name}.png", values)
    names, labels = read(tmp_path, "coco_stuff164k")
    assert names == ["000000000139", "000000000285"]
    assert labels == [[0, 10, 11, 170], [255, 23, 24, 80]]
    info = dataset_info("coco_stuff164k")
    assert [info.class_names[index] for index in (11, 79, 80, 170)] == ["stop sign", "toothbrush", "banner", "wood"]
    # A number that was never given to a thing.
    write(tmp_path, "images/val2017/a.jpg", "annotations/val2017/a.png", [11])
    with pytest.raises(ValueError, match=r"a\.png: label values out of range: 11; coco_stuff164k has values 0\.\.10,"):
        read_example(list_examples(DataSection(dataset="coco_stuff164k", root=str(tmp_path)), "val2017")[2], info)


@pytest.mark.parametrize("folder", ["labels", "v1.2/labels"])
def test_mapillary_vistas(tmp_path, folder):
    colors = np.vstack([dataset_info("mapillary_vistas").colors, [(0, 0, 0)]])
    write(tmp_path, "validation/images/a-B.jpg", f"validation/{folder}/a-B.png", [0, 64, 65, 13], palette=colors)
    assert read(tmp_path, "mapillary_vistas") == (["a-B"], [[0, 64, 255, 13]])
    info = dataset_info("mapillary_vistas")
    assert (info.class_names[13], info.class_names[64]) == ("Road", "Ego Vehicle")


def test_loveda(tmp_path):
    write(tmp_path, "Val/Urban/images_png/3514.png", "Val/Urban/masks_png/3514.png", [0, 1, 7, 2])
    write(tmp_path, "Val/Rural/images_png/2522.png", "Val/Rural/masks_png/2522.png", [3, 4, 5, 6])
    names, labels = read(tmp_path, "loveda")
    assert names == ["2522", "3514"]
    assert labels == [[2, 3, 4, 5], [255, 0, 6, 1]]
    (tmp_path / "Test/Urban/images_png").mkdir(parents=True)
    data = DataSection(dataset="loveda", root=str(tmp_path), train_split="Val")
    assert listing_warnings(data) == []
    (tmp_path / "Val/Rural").rename(tmp_path / "Rural")
    assert [example.name for example in list_examples(data, "Val")] == ["3514"]
    (warning,) = listing_warnings(data)
    assert "split 'Val': of LoveDA's two scenes Urban alone is there, Rural is not; psanet data check" in warning
    assert any("unpack the whole Val.zip" in finding.advice for finding in check_splits(data, ["Val"])[0].problems)
    with pytest.raises(FileNotFoundError, match=r"masks_png .*; LoveDA publishes no labels of its Test split"):
        list_examples(data, "Test")
    (tmp_path / "Train").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Train holds no folders Urban and Rural: unpack Train\.zip into"):
        list_examples(data, "Train")


def test_isaid(tmp_path):
    colors = [(0, 0, 0), (0, 0, 63), (0, 127, 255), (0, 100, 155)]
    place = "val/Semantic_masks/images/P0003_instance_color_RGB.png"
    write(tmp_path, "val/images/P0003.png", place, colors)
    assert read(tmp_path, "isaid") == (["P0003"], [[0, 1, 14, 15]])
    info = dataset_info("isaid")
    assert (info.class_names[1], info.class_names[15]) == ("ship", "Harbor")
    data = DataSection(dataset="isaid", root=str(tmp_path))
    write(tmp_path, "val/images/P0003.png", place, [(0, 0, 1)])
    with pytest.raises(ValueError, match=r"P0003_.*\.png: 153 pixels of colours that have no class: #000001"):
        read_example(list_examples(data, "val")[0], info)
    (tmp_path / "test/images").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"Semantic_masks.* iSAID publishes no labels of its test split"):
        list_examples(data, "test")
