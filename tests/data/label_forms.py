"""Labels in the forms that people have them in, made without the package's readers, each with what must come of it.

    python tests/data/label_forms.py

writes the table of docs/data.md.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from annotation_exports import (
    coco,
    compressed,
    corners,
    cvat_masks,
    cvat_xml,
    label_studio,
    labelme,
    roboflow,
    runs,
    supervisely,
)
from labelled_scenes import COLORS, COUNT, NAMES, SIZE, boxes, palette_image, photo, save, truth
from PIL import Image


class Form(NamedTuple):
    """Attributes:
    name: as in the table.
    make: function that writes the source into a folder.
    options: of `psanet data import`, as they are typed; {root} stands for the folder.
    answer: how it is read; of a refusal a part of its message.
    names: of the classes it must be read as, or None where it must be refused.
    expected: function of `truth` to what must be read.
    why: in the table, what a refusal says.
    """

    name: str
    make: object
    options: str
    answer: str
    names: tuple[str, ...] | None = NAMES
    expected: object = np.asarray
    why: str = ""


def masks(encode, suffix=".png", name="{}", **options):
    """images/p0.jpg and masks/p0.png, `encode` making the picture of a label array."""

    def make(root):
        for index in range(COUNT):
            save(photo(index), root / f"images/p{index}.jpg")
            save(encode(truth(index)), root / f"masks/{name.format(f'p{index}')}{suffix}", **options)

    return make


def values(*of_classes):
    return lambda label: np.array(of_classes, np.uint16 if max(of_classes) > 255 else np.uint8)[label]


def colored(label):
    return COLORS[label]


def with_file(make, name, text):
    def both(root):
        make(root)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    return both


PALETTE = "background,0,0,0\nroad,128,64,128\ncar,0,0,142\n"


def fitted_palette(label):
    """As programs do that fit a palette to each image."""
    return palette_image(label, np.roll([0, 1, 2], int(label.sum()) // 12))


def smoothed(label):
    small = Image.fromarray(label * 100).resize((15, 10), Image.Resampling.BILINEAR)
    return np.asarray(small.resize(SIZE[::-1], Image.Resampling.BICUBIC))


def rgba(alpha):
    def encode(label):
        pixels = np.full((*label.shape, 4), 255, np.uint8)
        pixels[..., :3] = COLORS[label]
        pixels[label == 0, 3] = alpha
        return pixels

    return encode


def per_class(place, overlapping=False):
    """A file for each class of each image at `place`."""

    def make(root):
        for index in range(COUNT):
            save(photo(index), root / f"images/p{index}.jpg")
            for value, name in enumerate(NAMES[1:], start=1):
                mask = truth(index) == value
                if overlapping:
                    left, top, right, bottom = boxes(index)[value - 1]
                    mask[top:bottom, left:right] = True
                save((mask * 255).astype(np.uint8), root / f"masks/{place.format(image=f'p{index}', name=name)}")

    return make


def beside(root):
    for index in range(COUNT):
        save(photo(index), root / f"p{index}.jpg")
        save(truth(index), root / f"p{index}_mask.png")


def split_folders(root):
    for index, split in enumerate(("training", "valid", "test")):
        save(photo(index), root / f"{split}/images/p{index}.jpg")
        save(truth(index), root / f"{split}/labels/p{index}.png")


def turned(root):
    """Images with an orientation tag, labels as the image is stored: turned by a quarter."""
    for index in range(COUNT):
        exif = Image.Exif()
        exif[0x0112] = 6
        # Orientation 6 is turned to the right when it is seen.
        save(np.rot90(photo(index)), root / f"images/p{index}.jpg", exif=exif)
        save(np.rot90(truth(index)), root / f"masks/p{index}.png")


def void(label):
    """Class 0 becomes no class."""
    return np.where(label == 0, 255, label - 1).astype(np.uint8)


def is_thing(label):
    return (label > 0).astype(np.uint8)


def black_and_white(label):
    return is_thing(label) * 255


def enlarged(label):
    """Every second pixel, twice each way."""
    return np.kron(label[::2, ::2], np.ones((2, 2), np.uint8))


_C = "--classes background,road,car"
_U = "--map unlabelled=background"
_V = " --val 0.3"
FORMS = [
    Form("grey PNG of 0, 1, 2", masks(values(0, 1, 2)), _C + _V, "the values"),
    Form("0 is no class, classes from 1 on", masks(values(0, 1, 2)), "--classes road,car --ignore 0" + _V,
         "the values; 0 becomes 255", ("road", "car"), void),
    Form("0 and 255", masks(black_and_white), "--classes background,thing" + _V,
         "black is the first class, white the second", ("background", "thing"), is_thing),
    Form("1 bit", masks(lambda label: is_thing(label).astype(bool)), "--classes background,thing" + _V, "0 and 1",
         ("background", "thing"), is_thing),
    Form("values with gaps", masks(values(7, 11, 26)), "--map 7=background --map 11=road --map 26=car" + _V,
         "the values"),
    Form("several values of one class", masks(values(7, 11, 26)),
         "--map 7=background --map 11=thing --map 26=thing" + _V, "the values", ("background", "thing"), is_thing),
    Form("255 beside the classes, of which nothing is said", masks(values(0, 1, 255)),
         "--map 0=background --map 1=road" + _V, "1 value without a class: 255 (", None,
         why="255, its pixels and files: --map 255=NAME, or --ignore 255"),
    Form("values without names", masks(values(0, 1, 2)), "--val 0.3", "give their names in this order", None,
         why="the values, and what to give: --classes"),
    Form("16 bits, values above 255", masks(values(1000, 2000, 3000)), _C + _V, "the values, in their order"),
    Form("values that were smoothed", masks(smoothed), _C + _V,
         "so many come from masks that were resized with smoothing", None,
         why="so many values come from smoothing or JPEG: export the masks anew"),
    Form("RGB, the colours in a file", with_file(masks(colored), "colors.csv", PALETTE),
         "--labels rgb --palette {root}/colors.csv" + _V, "the colours"),
    Form("RGB with class_dict.csv or labelmap.txt beside it",
         with_file(masks(colored), "class_dict.csv", "name,r,g,b\n" + PALETTE), "--val 0.3", "the colours"),
    Form("RGB, a colour that no line names",
         with_file(masks(colored), "colors.csv", PALETTE.replace("car,0,0,142\n", "")),
         "--palette {root}/colors.csv" + _V, "1 colour without a class: #00008e (", None,
         why="the colour, its pixels and files: a line for it, or --ignore"),
    Form("RGB, one colour of no class", with_file(masks(colored), "colors.csv", PALETTE),
         "--palette {root}/colors.csv --ignore \"#000000\"" + _V, "the colours", ("road", "car"), void),
    Form("RGB with alpha, opaque", with_file(masks(rgba(255)), "colors.csv", PALETTE),
         "--palette {root}/colors.csv" + _V, "the colours"),
    Form("RGB with alpha, transparent", with_file(masks(rgba(0)), "colors.csv", PALETTE),
         "--palette {root}/colors.csv" + _V, "transparent, of which nobody knows what they are", None,
         why="a colour of its own for what has no label"),
    Form("RGB of three equal channels", masks(lambda label: np.repeat(label[..., None], 3, -1)), _C + _V, "the values"),
    Form("palette PNG, one palette", masks(palette_image), _C + _V, "the index"),
    Form("palette PNG, the palette in another order in every file", masks(fitted_palette), _C + _V,
         "so an index is another class in every file", None,
         why="an index is another class in every file: --labels rgb"),
    Form("the same, by colour", with_file(masks(fitted_palette), "colors.csv", PALETTE),
         "--labels rgb --palette {root}/colors.csv" + _V, "the colours"),
    Form("JPEG", masks(values(0, 100, 200), ".jpg"), _C + _V, "export the masks anew as PNG", None,
         why="JPEG changes values along every edge: export the masks anew as PNG"),
    Form("TIFF", masks(values(0, 1, 2), ".tif"), _C + _V, "the values"),
    Form("BMP", masks(values(0, 1, 2), ".bmp"), _C + _V, "the values"),
    Form("TIFF of floating point", masks(lambda label: label.astype(np.float32), ".tif"), _C + _V,
         "floating point numbers are no labels", None,
         why="save whole numbers"),
    Form("masks of another size", masks(lambda label: label[::2, ::2]), _C + _V,
         "labels must be of their image's size [20, 30]", None,
         why="both sizes, and that --resize-masks enlarges them"),
    Form("the same, each a half of its image", masks(lambda label: label[::2, ::2]),
         _C + " --resize-masks" + _V, "each value a square of pixels", NAMES, enlarged),
    Form("masks of another size, which is no part of the image's", masks(lambda label: label[:15, :20]),
         _C + " --resize-masks" + _V, "got [15, 20]: they are of another image, or were cut", None,
         why="both sizes"),
    Form("images that a tag turns, masks drawn on them as they are stored", turned, _C + _V,
         "turned as their images are"),
    Form("masks beside the images, p1_mask.png", beside, _C + _V, "the values"),
    Form("masks named otherwise than their images", masks(values(0, 1, 2), name="x{}x"), _C + _V,
         "none of which has the name of an image", None,
         why="masks take their images' names"),
    Form("folders called training, valid and test", split_folders, _C, "the split is kept"),
    Form("a mask for each class, masks/road/p1.png", per_class("{name}/{image}.png"),
         _U + " --classes background,road,car" + _V, "what is not 0"),
    Form("a mask for each class, masks/p1/road.png", per_class("{image}/{name}.png"),
         _U + " --classes background,road,car" + _V, "what is not 0"),
    Form("a mask for each class, masks/p1_road.png", per_class("{image}_{name}.png"),
         _U + " --classes background,road,car" + _V, "what is not 0"),
    Form("masks for each class that overlap", per_class("{name}/{image}.png", overlapping=True), _U + _V,
         "--overlap last takes the later class", None,
         why="both classes and the pixels: --overlap last, or ignore"),
    Form("CVAT, Segmentation mask 1.1", cvat_masks, "--val 0.3", "the colours, by labelmap.txt"),
    Form("CVAT for images 1.1, polygons and masks", cvat_xml(), _U + _V, "what is inside, by z_order"),
    Form("the same, boxes among them", cvat_xml(box=True), _U + _V, "leave them out with --skip box", None,
         why="a box says nothing of single pixels: --skip box"),
    Form("shapes, and nothing said of the rest", cvat_xml(), "--val 0.3", "have no label (first: ", None,
         why="pixels without a label: --map unlabelled=NAME, or --ignore unlabelled"),
    Form("shapes, the rest no class", cvat_xml(), "--ignore unlabelled" + _V, "what is inside", ("road", "car"), void),
    Form("Label Studio JSON, polygons", label_studio(False), _U + _V, "what is inside"),
    Form("Label Studio JSON, brush", label_studio(True), _U + _V, "what the brush covers"),
    Form("LabelMe", labelme, _U + _V, "what is inside, in the order of the shapes"),
    Form("COCO, polygons", coco(lambda box, mask: [np.ravel(corners(box)).tolist()]),
         _U, "what is inside, small things in front"),
    Form("COCO, run lengths",
         coco(lambda box, mask: {"size": list(SIZE), "counts": runs(mask.T)}), _U, "what the runs cover"),
    Form("COCO, compressed run lengths (extra coco)", coco(lambda box, mask: compressed(mask)), _U,
         "what the runs cover"),
    Form("Supervisely, polygons and bitmaps", supervisely, _U + _V, "what is inside, edges included"),
    Form("Roboflow, semantic segmentation masks", roboflow, "", "the values, by _classes.csv"),
]  # fmt: skip

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"
_BEGIN, _END = "<!-- table of labels: tests/data/label_forms.py -->\n", "<!-- end of the table of labels -->\n"


def document_text():
    """docs/data.md with the table made anew."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    return before + _BEGIN + table() + _END + rest.split(_END)[1]


def table():
    """Markdown; a row for each form."""
    lines = ["| labels | with | become |", "| --- | --- | --- |"]
    for form in FORMS:
        options = form.options.replace("{root}/", "").replace("--val 0.3", "").strip()
        answer = form.answer if form.names else f"refused: {form.why}"
        lines.append(f"| {form.name} | {f'`{options}`' if options else ''} | {answer} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document_text(), encoding="utf-8")
