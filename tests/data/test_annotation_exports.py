"""Exports of annotation tools that are damaged, or hold what has no sure meaning: refused with what to do."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from annotation_exports import coco, corners, cvat_xml, label_studio, labelme, roboflow, runs, supervisely
from labelled_scenes import COLORS, COUNT, SIZE, photo, truth
from PIL import Image

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.importing import ImportOptions, import_dataset, inspect_source
from psanet_tf.data.importing.rules import LabelChoices, class_rule
from psanet_tf.data.importing.shapes import ellipse, inside
from psanet_tf.data.importing.source import UNLABELLED, with_unique_names
from psanet_tf.data.importing.where import Where
from psanet_tf.inference.prelabels import label_studio_task, write_cvat_masks


def changed(root, pattern, change):
    """Every file of the pattern with its text changed."""
    paths = sorted(root.glob(pattern))
    assert paths
    for path in paths:
        before = path.read_text()
        path.write_text(change(before))
        assert path.read_text() != before


def replaced(old, new):
    return lambda text: text.replace(old, new)


def polygons(root):
    coco(lambda box, mask: [np.ravel(corners(box)).tolist()])(root)


def with_task(change):
    """A change of the first task of a Label Studio export."""

    def apply(text):
        tasks = json.loads(text)
        change(tasks[0])
        return json.dumps(tasks)

    return apply


CASES = [
    (cvat_xml(), "*.xml", replaced("<annotations>", "<annotations><track/>"),
     r"CVAT's export for video .* export \"CVAT for images"),
    (cvat_xml(), "*.xml", replaced("</annotations>", ""), r"annotations\.xml is no XML file"),
    (cvat_xml(), "*.xml", replaced('rle="', 'rle="1, '),
     r"\(image p0\.jpg\): the runs of a mask sum up to \d+ pixels, it"),
    (cvat_xml(), "*.xml", replaced('rle="', 'rle="x'), r"\(image p0\.jpg\): a mask of 'car' is damaged"),
    (cvat_xml(), "*.xml", replaced('name="p', 'name="q'), r"not one of its images is below .*first: q0\.jpg.*--images"),
    (cvat_xml(), "*.xml", replaced('width="30"', 'width="31"'), r"image's size \[20, 30\] .*--images names the folder"),
    (cvat_xml(), "*.xml", replaced("p1.jpg", "p0.jpg"), r"p0\.jpg is annotated twice, in .* and in .*: keep one"),
    (cvat_xml(box=True), "*.xml", replaced("z_order", "z"), r"3 boxes .* --skip box"),
    (label_studio(False), "*.json", with_task(lambda task: task["annotations"].append({"result": []})),
     r"task 0, photos/p0\.jpg\) has 2 annotations: export one of each task, or mark the one"),
    (label_studio(False), "*.json", replaced('"image_rotation": 0', '"image_rotation": 90'),
     "turned by 90 degrees in Label"),
    (label_studio(False), "*.json", replaced('["road"]', '["road", "car"]'), "each needs one label, and the size"),
    (label_studio(False), "*.json", replaced('"polygonlabels", "value"', '"rectanglelabels", "value"'),
     r"6 rectangles \(first: .* make polygons or masks of them, or leave them out with --skip rectangle"),
    (label_studio(True), "*.json", replaced('"rle": [0', '"rle": [1'),
     r"a brush holds \d+ values of 8 bits, 2400 bytes"),
    (labelme, "*.json", replaced('"polygon"', '"spiral"'), r"p0\.json: a shape of kind 'spiral' is not known here"),
    (labelme, "*.json", replaced('"polygon"', '"rectangle"'), r"3 rectangles .* --skip rectangle"),
    (labelme, "p0.json", lambda text: text[:40], r"p0\.json is no JSON file"),
    (polygons, "**/*train2017.json", replaced('"id": 41, ', '"id": 40, '), r"two images have the id 40, and annotat"),
    (polygons, "**/*.json", replaced('{"id": 9, ', '{"id": 7, '), r"two categories have the id 7"),
    (polygons, "**/*val2017.json", lambda text: text[:40],
     r"val2017\.json is no JSON file: .*: beside instances_train2017\.json it may be one of the annotations: exp"),
    (polygons, "**/*.json", replaced('"category_id": 9', '"category_id": 8'), r"no category has the id 8"),
    (polygons, "**/*.json", replaced('"segmentation"', '"other"'), r"6 boxes \(first: .* --skip box"),
    (polygons, "**/*train2017.json", replaced("]]", ", 3]]"), r"the polygon of annotation 0 is damaged"),
    (supervisely, "meta.json", replaced('"car"', '"cart"'),
     r"p0\.jpg\.json: an object of class 'car', which meta\.json"),
    (supervisely, "ds/ann/*.json", replaced('"polygon"', '"line"'), r"3 lines .* --skip line"),
    (supervisely, "ds/ann/p0.jpg.json", replaced('"data": "', '"data": "AA'), r"a bitmap of 'car' is damaged"),
    (roboflow, "valid/_classes.csv", replaced("1, road", "1, rod"),
     r"_classes\.csv: value 1 is 'rod', in .* it is 'road'"),
    (roboflow, "valid/_classes.csv", replaced("1, road", "one, road"),
     r"line 3 of .*_classes\.csv must be a value and a"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "pattern", "change", "message"), CASES)
def test_exports_that_cannot_be_used(tmp_path, make, pattern, change, message):
    make(tmp_path)
    changed(tmp_path, pattern, change)
    with pytest.raises(ValueError, match=message):
        inspect_source(tmp_path)


def test_what_is_written_for_annotation_tools_is_read_back(tmp_path):
    """`psanet suggest` writes labels to be corrected; corrected they come back as exports."""
    info = DatasetInfo("mine", ("background", "road", "car"), COLORS)
    for index in range(COUNT):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(photo(index)).save(tmp_path / f"photos/p.{index}.png")
    labels = [(f"p.{index}", truth(index)) for index in range(COUNT)]
    write_cvat_masks(tmp_path / "masks.zip", labels, info)
    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        archive.extractall(tmp_path / "cvat")
    tasks = []
    for name, label in labels:
        task = label_studio_task(f"/data/{name}.png", label, info, 0.5, "net")
        tasks.append({**task, "annotations": [{"result": task["predictions"][0]["result"]}]})
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    for source in ("cvat", "tasks.json"):
        inspection = inspect_source(tmp_path / source, Where(images=tmp_path / "photos"))
        out = tmp_path / f"from_{source}"
        import_dataset(inspection, out, ImportOptions(val_share=0.3))
        assert (out / "classes.txt").read_text().split() == list(info.class_names)
        for name, label in labels:
            (path,) = out.glob(f"labels/*/{name}.png")
            assert np.array_equal(np.asarray(Image.open(path)), label)


def test_classes_keep_the_order_of_another_dataset_also_if_not_all_occur(tmp_path):
    """Label Studio's export names what was drawn alone, in the order in which it was drawn."""
    label_studio(True)(tmp_path / "studio")
    names = ("plane", "car", "road", "ship", "background")
    choices = LabelChoices(names, {UNLABELLED: "background"})
    options = ImportOptions(choices, val_share=0.3)
    output = import_dataset(inspect_source(tmp_path / "studio"), tmp_path / "out", options)
    assert "note: plane, ship never occur, and would count as 0 in mean scores" in output
    assert (tmp_path / "out/classes.txt").read_text().split() == list(names)
    for index in range(COUNT):
        (path,) = (tmp_path / "out").glob(f"labels/*/p{index}.png")
        assert np.array_equal(np.asarray(Image.open(path)), np.array([4, 2, 1])[truth(index)])
    options = ImportOptions(LabelChoices(("background", "raod", "car"), {UNLABELLED: "background"}), val_share=0.3)
    with pytest.raises(ValueError, match=r"road \(.*\) is 'road', which --classes does not name: add it there"):
        import_dataset(inspect_source(tmp_path / "studio"), tmp_path / "wrong", options)


def test_tasks_that_nobody_has_labelled_are_no_export(tmp_path):
    """What `psanet suggest` writes for Label Studio, given before it was there."""
    info = DatasetInfo("mine", ("background", "road", "car"), COLORS)
    Image.fromarray(photo(0)).save(tmp_path / "p0.png")
    (tmp_path / "tasks.json").write_text(json.dumps([label_studio_task("/data/p0.png", truth(0), info, 0.5, "net")]))
    for source in (tmp_path, tmp_path / "tasks.json"):
        with pytest.raises(ValueError, match=r"a network's labels that nobody has accepted: .* submit them there"):
            inspect_source(source)


def test_a_mask_of_another_size_than_its_image(tmp_path):
    coco(lambda box, mask: {"size": [10, 60], "counts": [600]})(tmp_path)
    with pytest.raises(ValueError, match=r"the mask of annotation 0 is of \[10, 60\] pixels, the image of \[20, 30\]"):
        inspect_source(tmp_path)


def test_names_that_a_line_cannot_hold(tmp_path):
    labelme(tmp_path)
    changed(tmp_path, "*.json", replaced('"road"', '" "'))
    with pytest.raises(ValueError, match=r"' ' is no name of a class that a line can hold"):
        import_dataset(inspect_source(tmp_path), tmp_path / "out", ImportOptions(LabelChoices(ignore=("unlabelled",))))


def test_exports_that_lack_something(tmp_path):
    polygons(tmp_path)
    changed(tmp_path, "annotations/*train2017.json", replaced('"height"', '"rows"'))
    with pytest.raises(ValueError, match=r"files of COCO \(instances_.*\) that lacks something.* KeyError\('height'\)"):
        inspect_source(tmp_path)


def test_annotations_of_images_that_are_not_listed_are_counted(tmp_path):
    polygons(tmp_path)
    changed(tmp_path, "annotations/*train2017.json", replaced('"image_id": 41', '"image_id": 77'))
    inspection = inspect_source(tmp_path)
    note = "left out, of images that it does not list (first: 2, of the image with the id 77)"
    assert f"note: 2 annotations of {tmp_path / 'annotations/instances_train2017.json'} {note}" in inspection.text()
    codes = next(image for image in inspection.source.images if image.name == "p1").labels.codes(SIZE)
    assert np.all(codes == len(inspection.source.keys.names))


@pytest.mark.parametrize("form", ["polygons", "masks"])
def test_what_is_smaller_lies_in_front_where_the_file_says_no_areas(tmp_path, form):
    encode = {
        "polygons": lambda box, mask: [np.ravel(corners(box)).tolist()],
        "masks": lambda box, mask: {"size": list(SIZE), "counts": runs(mask.T)},
    }
    coco(encode[form])(tmp_path)
    changed(tmp_path, "annotations/*.json", replaced('"area"', '"surface"'))
    source = inspect_source(tmp_path).source
    names = np.array([*source.keys.names, UNLABELLED])
    expected = np.array([UNLABELLED, "road", "car"])
    for index, image in enumerate(source.images):
        assert np.array_equal(names[image.labels.codes(SIZE)], expected[truth(index)])


def test_options_of_masks_are_refused_for_annotations(tmp_path):
    cvat_xml()(tmp_path)
    (tmp_path / "settings.json").write_text('{"a": ')
    for where, message in (
        (
            Where(labels="value"),
            "--labels says how files of masks are read, and .* holds an export of CVAT .*: leave it",
        ),
        (Where(overlap="stop", resize_masks=True), "--overlap, --resize-masks say how .*: leave them out"),
        (Where(palette=tmp_path / "colors.csv"), "--palette says how files of masks are read"),
    ):
        with pytest.raises(ValueError, match=message):
            inspect_source(tmp_path, where)
    with pytest.raises(ValueError, match=r"--masks .*images beside the file .*annotations\.xml: leave it out"):
        inspect_source(tmp_path / "annotations.xml", Where(masks=tmp_path / "images"))
    assert "settings.json is no JSON file" in inspect_source(tmp_path).text()


def test_shapes_are_left_out_where_that_is_wanted(tmp_path):
    cvat_xml(box=True)(tmp_path)
    inspection = inspect_source(tmp_path, Where(skip=("box",)))
    assert "note: 3 boxes left out (--skip)" in inspection.text()


def test_images_that_are_not_there_are_left_out_and_named(tmp_path):
    cvat_xml()(tmp_path)
    (tmp_path / "images/p1.jpg").unlink()
    inspection = inspect_source(tmp_path)
    assert len(inspection.source.images) == COUNT - 1
    assert "1 image of " in inspection.text()
    assert "not there (first: p1.jpg), left out" in inspection.text()


def test_images_are_told_apart_by_their_folders(tmp_path):
    cvat_xml()(tmp_path)
    (tmp_path / "images").rename(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for index in range(COUNT):
        (tmp_path / f"b/p{index}.jpg").write_bytes((tmp_path / f"a/p{index}.jpg").read_bytes())
    with pytest.raises(ValueError, match=r"'p0\.jpg' may be .*/a/p0\.jpg or .*/b/p0\.jpg: --images names the folder"):
        inspect_source(tmp_path)
    changed(tmp_path, "*.xml", replaced('name="p', 'name="b/p'))
    assert {image.path.parent.name for image in inspect_source(tmp_path).source.images} == {"b"}


def test_several_exports_in_one_folder(tmp_path):
    cvat_xml()(tmp_path)
    labelme(tmp_path)
    with pytest.raises(ValueError, match=r"holds an export of CVAT \(annotations\.xml\) and files of LabelMe \(p0\."):
        inspect_source(tmp_path)
    inspection = inspect_source(tmp_path / "annotations.xml", Where(images=tmp_path / "images"))
    assert inspection.source.kind == "CVAT for images, annotations.xml with 3 images"
    (tmp_path / "more.xml").write_text((tmp_path / "annotations.xml").read_text())
    with pytest.raises(ValueError, match=r"holds 2 exports of CVAT \(annotations\.xml, more\.xml\): give one of"):
        inspect_source(tmp_path)


def test_files_that_are_no_export(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.rar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.json is no export of CVAT, Label Studio, LabelMe or COCO"):
        inspect_source(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.rar is no folder, and no \.zip, \.json or \.xml: unpack other"):
        inspect_source(tmp_path / "a.rar")
    with pytest.raises(FileNotFoundError, match="there is no folder and no file .*nowhere"):
        inspect_source(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no images are found below it"):
        inspect_source(tmp_path)


def test_what_labelme_ignores_is_no_class(tmp_path):
    labelme(tmp_path)
    changed(tmp_path, "*.json", replaced('"road"', '"__ignore__"'))
    source = inspect_source(tmp_path).source
    assert source.ignored == {"__ignore__"}


def test_unknown_shapes_are_not_dropped(tmp_path):
    cvat_xml()(tmp_path)
    changed(tmp_path, "*.xml", replaced("</image>", '<tag label="car"/><cloud label="car"/></image>'))
    with pytest.raises(ValueError, match="3 clouds .* --skip cloud"):
        inspect_source(tmp_path)
    assert "3 clouds left out" in inspect_source(tmp_path, Where(skip=("cloud",))).text()
    (tmp_path / "studio").mkdir()
    label_studio(False)(tmp_path / "studio")
    changed(tmp_path / "studio", "*.json", replaced('"polygonlabels", "value"', '"bitmasklabels", "value"'))
    with pytest.raises(ValueError, match="a region of type 'bitmasklabels' is not read here"):
        inspect_source(tmp_path / "studio")


def test_a_mapping_does_not_change_what_another_one_means(tmp_path):
    cvat_xml()(tmp_path)
    inspection = inspect_source(tmp_path)
    choices = LabelChoices(mapping={"road": "car", "car": "road"}, ignore=(UNLABELLED,))
    rule = class_rule(inspection.source, inspection.counts, choices)
    assert {key: rule.class_of[key] for key in ("road", "car")} == {"road": "car", "car": "road"}


def test_what_the_source_ignores_can_be_mapped_by_its_name(tmp_path):
    labelme(tmp_path)
    changed(tmp_path, "*.json", replaced('"road"', '"__ignore__"'))
    inspection = inspect_source(tmp_path)
    for mapping, expected in (({}, None), ({"__ignore__": "street"}, "street")):
        choices = LabelChoices(mapping=mapping, ignore=(UNLABELLED,))
        assert class_rule(inspection.source, inspection.counts, choices).class_of["__ignore__"] == expected


def test_names_that_no_path_tells_apart(tmp_path):
    paths = [Path("a_b/c.jpg"), Path("a/b_c.jpg"), Path("x/q.jpg"), Path("y/q.jpg")]
    with pytest.raises(ValueError, match=r"a_b/c\.jpg and .*a/b_c\.jpg would both be called a_b_c_jpg: give one"):
        with_unique_names([(tmp_path / path, path) for path in paths])


def codes_of(source, index):
    """Labels of an image as names, in an array of text."""
    image = next(image for image in source.images if f"p{index}" in image.name)
    names = np.array([*source.keys.names, UNLABELLED])
    return names[image.labels.codes(SIZE)]


def test_round_things(tmp_path):
    """Ellipses of CVAT and Label Studio, circles of LabelMe: all the same one."""
    circle = inside([ellipse(15, 10, 6, 6)], SIZE)
    sources = {}
    for name, make in (("cvat", cvat_xml()), ("studio", label_studio(False)), ("labelme", labelme)):
        (tmp_path / name).mkdir()
        make(tmp_path / name)
    round_car = '<ellipse label="car" cx="15" cy="10" rx="6" ry="6" z_order="1"/>'
    changed(tmp_path / "cvat", "*.xml", lambda text: re.sub(r'<mask label="car".*?/>', round_car, text))
    tree = json.loads((tmp_path / "studio/project.json").read_text())
    for task in tree:
        region = task["annotations"][1]["result"][1]
        region["type"] = "ellipselabels"
        region["value"] = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 30, "rotation": 0, "ellipselabels": ["car"]}
    (tmp_path / "studio/project.json").write_text(json.dumps(tree))
    for path in (tmp_path / "labelme").glob("*.json"):
        tree = json.loads(path.read_text())
        tree["shapes"][1] = {"label": "car", "points": [[15, 10], [15, 16]], "shape_type": "circle"}
        path.write_text(json.dumps(tree))
    for name in ("cvat", "studio", "labelme"):
        sources[name] = inspect_source(tmp_path / name).source
        assert np.array_equal(codes_of(sources[name], 1) == "car", circle), name


def test_holes_of_supervisely(tmp_path):
    supervisely(tmp_path)
    for path in (tmp_path / "ds/ann").glob("*.json"):
        tree = json.loads(path.read_text())
        hole = [[4, 9], [8, 9], [8, 11], [4, 11]]
        tree["objects"] = [
            {
                "classTitle": "road",
                "geometryType": "polygon",
                "points": {"exterior": [[2, 8], [19, 8], [19, 15], [2, 15]], "interior": [hole]},
            }
        ]
        path.write_text(json.dumps(tree))
    expected = np.zeros(SIZE, bool)
    expected[8:16, 2:20] = True
    expected[9:12, 4:9] = False
    assert np.array_equal(codes_of(inspect_source(tmp_path).source, 0) == "road", expected)
