"""Labels in every form that people have them in: read as what they are, or refused with what to do."""

import importlib.util
import shlex
import shutil

import numpy as np
import pytest
from label_forms import DOCUMENT, FORMS, document_text
from labelled_scenes import COLORS, COUNT, SIZE, photo, truth
from PIL import Image
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf.config import load_config
from psanet_tf.data.catalog import info_of
from psanet_tf.data.importing import inspect_source
from psanet_tf.data.importing.where import Where
from psanet_tf.data.importing.writing import read_labels
from psanet_tf.data.readers import list_examples, read_example


def run(*arguments):
    _register()
    return CliRunner().invoke(app, ["data", "import", *map(str, arguments)])


def read_back(out):
    """(class names, {name: labels}) of a dataset as its configuration has it."""
    data = load_config(out / "dataset.yaml").data
    info = info_of(data)
    labels = {}
    for split in ("train", "val", "test"):
        if (out / "images" / split).is_dir():
            for example in list_examples(data, split):
                image, labels[example.name] = read_example(example, info)
                assert image.shape[:2] == labels[example.name].shape
    return info.class_names, labels


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_every_form_is_read_right_or_refused(form, tmp_path):
    if "extra coco" in form.name and importlib.util.find_spec("pycocotools") is None:
        pytest.skip("pycocotools is not installed")
    root, out = tmp_path / "source", tmp_path / "dataset"
    root.mkdir()
    form.make(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    result = run(root, "--out", out, *shlex.split(form.options.format(root=root), comments=False))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before
    if form.names is None:
        assert isinstance(result.exception, ValueError), result.output
        assert form.answer in str(result.exception)
        assert not out.exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
        return
    assert result.exit_code == 0, (result.output, result.exception)
    names, labels = read_back(out)
    assert names == form.names
    assert len(labels) == COUNT
    for name, label in labels.items():
        index = next(index for index in range(COUNT) if f"p{index}" in name)
        assert np.array_equal(label, form.expected(truth(index))), name


def test_the_documented_table_is_what_is_tested():
    assert DOCUMENT.read_text(encoding="utf-8") == document_text(), "run python tests/data/label_forms.py"
    assert len(FORMS) >= 25


def test_images_are_the_files_themselves(tmp_path):
    form = FORMS[0]
    form.make(tmp_path / "source")
    result = run(tmp_path / "source", "--out", tmp_path / "dataset", *shlex.split(form.options))
    assert result.exit_code == 0, result.output
    for index in range(COUNT):
        (copy,) = (tmp_path / "dataset/images").glob(f"*/p{index}.jpg")
        assert copy.samefile(tmp_path / f"source/images/p{index}.jpg")


def test_where_no_link_can_be_made_images_are_copied(tmp_path, monkeypatch):
    def no_link(*arguments):
        raise PermissionError("links are not allowed here")

    monkeypatch.setattr("os.link", no_link)
    form = FORMS[0]
    form.make(tmp_path / "source")
    assert run(tmp_path / "source", "--out", tmp_path / "dataset", *shlex.split(form.options)).exit_code == 0
    (copy,) = (tmp_path / "dataset/images").glob("*/p1.jpg")
    assert copy.read_bytes() == (tmp_path / "source/images/p1.jpg").read_bytes()
    assert not copy.samefile(tmp_path / "source/images/p1.jpg")


def test_without_out_it_says_what_is_there(tmp_path):
    FORMS[0].make(tmp_path / "source")
    result = run(tmp_path / "source")
    assert result.exit_code == 0, result.output
    assert "found: 3 images with masks (grey), read by their values" in result.output
    assert "  value 2: " in result.output
    assert "in 3 files -> ?" in result.output
    assert "nothing is written" in result.output


@pytest.mark.parametrize(
    "name",
    [
        "grey PNG of 0, 1, 2",
        "0 and 255",
        "255 beside the classes, of which nothing is said",
        "RGB, a colour that no line names",
        "RGB, the colours in a file",
        "folders called training, valid and test",
        "a mask for each class, masks/road/p1.png",
        "CVAT, Segmentation mask 1.1",
        "shapes, and nothing said of the rest",
        "Roboflow, semantic segmentation masks",
    ],
)
def test_what_is_proposed_makes_the_import_complete(name, tmp_path):
    next(form for form in FORMS if form.name == name).make(tmp_path / "source")
    lines = run(tmp_path / "source").output.splitlines()
    proposals = [line.partition(": ")[2] for line in lines if line.startswith("proposal, with names of your own: ")]
    assert len(proposals) == (0 if name.startswith("Roboflow") else 1)
    result = run(tmp_path / "source", "--out", tmp_path / "out", *shlex.split("".join(proposals)))
    assert result.exit_code == 0, (result.output, result.exception)
    assert len(read_back(tmp_path / "out")[1]) == COUNT


def test_nothing_is_proposed_for_masks_that_must_be_made_anew(tmp_path):
    next(form for form in FORMS if form.name.startswith("values that were smoothed")).make(tmp_path)
    assert "proposal" not in run(tmp_path).output


def test_what_is_written_is_said_and_the_split_depends_on_the_seed_alone(tmp_path):
    root = tmp_path / "source"
    for index in range(20):
        for folder, array in (("images", photo(index)), ("masks", truth(index % 3))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / folder / f"{index}.png")
    options = ("--classes", "background,road,car", "--val", 0.25)
    splits = []
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        result = run(root, "--out", tmp_path / place, *options, "--seed", seed)
        assert f"15 train images, 5 val images (drawn, seed {seed})" in result.output
        assert f"next: psanet data check --config {tmp_path / place / 'dataset.yaml'}" in result.output
        splits.append(sorted(path.name for path in (tmp_path / place / "images/val").iterdir()))
    assert splits[0] == splits[1] != splits[2]
    again = run(root, "--out", tmp_path / "a", *options)
    assert isinstance(again.exception, FileExistsError)
    assert "a exists already; remove it or choose another place" in str(again.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--classes background,road,car", "no validation images (no folder called val): --val 0.1 draws a tenth"),
        ("--val 0.3 --classes a,b,c --map 9=a", "--map 9=a: there is no value '9'; there are 0, 1, 2"),
        ("--val 0.3 --classes a,b", "--classes gives 2 names, the labels hold 3 values (0, 1, 2): say which value is"),
        ("--val 0.3 --classes a,b,a", "--classes: every class needs a name of its own, got 'a, b, a'"),
        ("--val 0.3 --map 0=a --map 1=b --map 2=c --classes a,b", "is 'c', which --classes does not name"),
        ("--val 0.3 --map 0=a,1=b", "--map 0=a,1=b: there is no value '0=a,1'; there are"),
        ("--val 2 --classes a,b,c", "--val: must be between 0 and 1, got 2.0"),
        ("--val 0.3 --map 0", "--map: must look like 7=road, got '0'"),
        ("--val 0.3 --ignore 0,1,2 --classes a", "--classes gives 1 name, the labels hold 0 values"),
        ("--val 0.3 --map 0=a --map 1=b --map 2=b --map 0=b", "--map: 0 is 'a' and 'b': which of the two?"),
        ("--seed 3 --classes a,b,c", "--seed 3 is of the draw of validation images, which --val asks for: leave it"),
        ("--val 0.3 --classes a,b,c --skip box", "--skip box leaves out shapes of annotation files, and there are non"),
        ("--val 0.3 --classes a,b,c --overlap stop", "--overlap stop is for several masks of one image, one for each"),
        ("--val 0.3 --images nowhere", "there is no folder nowhere"),
        ("--val 0.3 --palette nowhere.csv", "--palette: there is no file nowhere.csv"),
        ("--val 0.3 --palette {root}/colors.csv", "--palette names colours, and the masks hold values (grey): leave"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(tmp_path, options, message):
    source = tmp_path / "source"
    FORMS[0].make(source)
    (source / "colors.csv").write_text("road,0,0,1\n")
    result = run(source, "--out", tmp_path / "dataset", *shlex.split(options.format(root=source)))
    assert isinstance(result.exception, (ValueError, FileNotFoundError)), result.output
    assert message in str(result.exception)
    assert not (tmp_path / "dataset").exists()


def test_colours_of_the_source_are_kept_and_others_differ_from_them(tmp_path):
    form = next(form for form in FORMS if form.name.startswith("CVAT for images"))
    form.make(tmp_path / "source")
    assert run(tmp_path / "source", "--out", tmp_path / "out", *shlex.split(form.options)).exit_code == 0
    assert info_of(load_config(tmp_path / "out/dataset.yaml").data).colors.tolist() == COLORS.tolist()


def test_archives_are_read_as_they_were_downloaded(tmp_path):
    form = next(form for form in FORMS if form.name.startswith("CVAT for images"))
    form.make(tmp_path / "source")
    shutil.make_archive(tmp_path / "export", "zip", tmp_path / "source")
    shutil.rmtree(tmp_path / "source")
    archive, out = tmp_path / "export.zip", tmp_path / "out"
    stopped = run(archive, "--out", out, "--val", 0.3)
    assert f"have no label (first: {archive}/annotations.xml (image p0.jpg))" in str(stopped.exception)
    assert run(archive, "--out", out, *shlex.split(form.options)).exit_code == 0
    names, labels = read_back(out)
    assert names == form.names
    assert all(np.array_equal(labels[f"p{index}"], truth(index)) for index in range(COUNT))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.zip", "out"]
    archive.write_bytes(archive.read_bytes()[:200])
    assert f"{archive} cannot be unpacked: File is not a zip file" in str(run(archive).exception)


def test_classes_that_never_occur_are_named(tmp_path):
    form = next(form for form in FORMS if form.name == "COCO, polygons")
    form.make(tmp_path / "source")
    for path in (tmp_path / "source/annotations").iterdir():
        path.write_text(path.read_text().replace('"categories": [', '"categories": [{"id": 0, "name": "all things"}, '))
    options = shlex.split(form.options)
    result = run(tmp_path / "source", "--out", tmp_path / "out", *options)
    assert (
        "note: all things never occurs, and would count as 0 in mean scores; --ignore 'all things' leaves it out"
        in (result.output)
    )
    result = run(tmp_path / "source", "--out", tmp_path / "without", *options, "--ignore", "all things")
    assert "note:" not in result.output
    assert read_back(tmp_path / "without")[0] == form.names


def test_lists_of_the_source_are_its_split(tmp_path):
    form = next(form for form in FORMS if form.name.startswith("CVAT, Segmentation"))
    form.make(tmp_path)
    lists = tmp_path / "ImageSets/Segmentation"
    (lists / "default.txt").rename(lists / "Train.txt")
    (lists / "Validation.txt").write_text("set/p2\n")
    (lists / "Train.txt").write_text("p0\np1\n")
    result = run(tmp_path)
    assert "splits of the source: train 2, val 1" in result.output


def test_an_orientation_that_sizes_do_not_tell_is_said(tmp_path):
    FORMS[0].make(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(photo(0)).save(tmp_path / "images/p0.jpg", exif=exif)
    output = run(tmp_path).output
    assert "note: 1 image to be turned (orientation tag), whose sizes do not tell" in output
    assert "images/p0.jpg" in output


def test_labels_are_read_with_their_orientation_at_once(tmp_path, monkeypatch):
    """Images are not opened a second time, one after the other, for what reading their labels has seen."""
    from psanet_tf.data.importing import writing

    for index in range(COUNT):
        exif = Image.Exif()
        exif[0x0112] = 6
        for folder, array in (("images", photo(index)[:, :20]), ("masks", truth(index)[:, :20])):
            (tmp_path / folder).mkdir(exist_ok=True)
            options = {"exif": exif} if folder == "images" and index else {}
            Image.fromarray(array).save(tmp_path / folder / f"{index}.png", **options)
    opened = []
    original = writing._orientation
    monkeypatch.setattr(writing, "_orientation", lambda path: opened.append(path) or original(path))
    inspection = inspect_source(tmp_path)
    assert len(opened) == COUNT
    # Square images: turned or not, they are of one size.
    assert "note: 2 images to be turned (orientation tag), whose sizes do not tell" in inspection.text()


def test_how_much_masks_are_enlarged_is_said(tmp_path):
    for index, step in enumerate((1, 2, 5)):
        for folder, array in (("images", photo(index)), ("masks", truth(index)[::step, ::step])):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"p{index}.png")
    message = (
        r"p1\.png: labels must be of .* got \[10, 15\]: --resize-masks enlarges them 2 times, without mixing values"
    )
    with pytest.raises(ValueError, match=message):
        inspect_source(tmp_path)
    inspection = inspect_source(tmp_path, Where(resize_masks=True))
    for times in (2, 5):
        line = f"note: the masks of 1 image are enlarged {times} times (--resize-masks): their edges stay coarse"
        assert line in inspection.text()
    for image, step in zip(inspection.source.images, (1, 2, 5), strict=True):
        expected = np.kron(truth(int(image.name[1]))[::step, ::step], np.ones((step, step), np.uint8))
        assert np.array_equal(read_labels(image).codes, expected)
    whole = inspect_source(tmp_path, Where(images=tmp_path / "images", masks=tmp_path / "masks", resize_masks=True))
    assert whole.counts.pixels == inspection.counts.pixels
    FORMS[0].make(tmp_path / "right")
    assert (
        "--resize-masks: all masks have the sizes"
        in inspect_source(tmp_path / "right", Where(resize_masks=True)).text()
    )


def test_masks_of_stored_images_are_enlarged_before_they_are_turned(tmp_path):
    for index in range(COUNT):
        exif = Image.Exif()
        exif[0x0112] = 6
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.rot90(photo(index)).copy()).save(tmp_path / f"images/p{index}.jpg", exif=exif)
        Image.fromarray(np.rot90(truth(index)[::2, ::2]).copy()).save(tmp_path / f"masks/p{index}.png")
    source = inspect_source(tmp_path, Where(resize_masks=True)).source
    for image in source.images:
        expected = np.kron(truth(int(image.name[1]))[::2, ::2], np.ones((2, 2), np.uint8))
        assert np.array_equal(read_labels(image).codes, expected)


def test_images_of_many_channels_are_taken_as_they_are(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    FORMS[0].make(tmp_path / "source")
    for index in range(COUNT):
        (tmp_path / f"source/images/p{index}.jpg").unlink()
        values = np.full((*SIZE, 7), index, np.uint16)
        tifffile.imwrite(
            tmp_path / f"source/images/p{index}.tif", values, photometric="minisblack", planarconfig="contig"
        )
    assert run(tmp_path / "source", "--out", tmp_path / "out", *shlex.split(FORMS[0].options)).exit_code == 0
    data = load_config(tmp_path / "out/dataset.yaml", ["data.channels=7", "data.dtype=uint16"]).data
    image, label = read_example(list_examples(data, "val")[0], info_of(data))
    assert image.shape == (*SIZE, 7)
    assert np.array_equal(label, truth(int(image[0, 0, 0])))


def test_a_split_of_the_source_is_not_drawn_again(tmp_path):
    form = next(form for form in FORMS if form.name.startswith("folders called training"))
    form.make(tmp_path / "source")
    result = run(tmp_path / "source", "--out", tmp_path / "dataset", *shlex.split(form.options), "--val", 0.1)
    assert "--val 0.1: the source has 1 validation images of its own" in str(result.exception)


def test_folders_whose_names_tell_nothing_are_named_by_the_user(tmp_path):
    for index in range(2):
        for folder, array in (("a", photo(index)), ("b", truth(index))):
            (tmp_path / "source" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "source" / folder / f"{index}.png")
    source = tmp_path / "source"
    result = run(source)
    assert "4 images, and no masks are found below it: --masks names their folder" in str(result.exception)
    options = ("--images", source / "a", "--masks", source / "b", "--classes", "x,y,z", "--val", 0.5)
    assert run(source, *options, "--out", tmp_path / "out").exit_code == 0
    names, labels = read_back(tmp_path / "out")
    assert names == ("x", "y", "z")
    assert np.array_equal(labels["1"], truth(1))
