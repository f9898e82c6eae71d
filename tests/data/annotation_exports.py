"""Exports of annotation tools, made without the package's readers: of the scenes in `labelled_scenes`."""

import base64
import io
import json
import zlib
from xml.sax.saxutils import quoteattr

import numpy as np
from labelled_scenes import COLORS, COUNT, NAMES, SIZE, boxes, palette_image, photo, save, truth
from PIL import Image


def roboflow(root):
    for index, split in enumerate(("train", "train", "valid")):
        save(photo(index), root / f"{split}/p{index}_jpg.rf.0a1b.jpg")
        save(truth(index), root / f"{split}/p{index}_jpg.rf.0a1b_mask.png")
        text = "Pixel Value, Class\n" + "".join(f"{value}, {name}\n" for value, name in enumerate(NAMES))
        (root / split / "_classes.csv").write_text(text)


def cvat_masks(root):
    for index in range(COUNT):
        save(photo(index), root / f"JPEGImages/p{index}.jpg")
        save(palette_image(truth(index)), root / f"SegmentationClass/p{index}.png")
        save(palette_image(truth(index)), root / f"SegmentationObject/p{index}.png")
    text = "# label:color_rgb:parts:actions\n"
    text += "".join("{}:{},{},{}::\n".format(name, *color) for name, color in zip(NAMES, COLORS, strict=True))
    (root / "labelmap.txt").write_text(text)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("".join(f"p{index}\n" for index in range(COUNT)))


def corners(box):
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def runs(mask):
    """Lengths of runs outside and inside by turns, beginning outside."""
    lengths, inside = [0], False
    for value in mask.ravel().tolist():
        if bool(value) != inside:
            lengths.append(0)
            inside = not inside
        lengths[-1] += 1
    return lengths


def cvat_xml(box=False):
    """The road as a polygon, the car as a mask in a box of its own, above it although it is listed first."""

    def make(root):
        labels = "".join(
            "<label><name>{}</name><color>#{:02x}{:02x}{:02x}</color></label>".format(name, *color)
            for name, color in zip(NAMES[1:], COLORS[1:], strict=True)
        )
        parts = [f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"]
        for index in range(COUNT):
            save(photo(index), root / f"images/p{index}.jpg")
            road, car = boxes(index)
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(road))
            left, top, right, bottom = car[0] - 1, car[1] - 2, car[2] + 1, car[3]
            mask = truth(index)[top:bottom, left:right] == 2
            parts.append(
                f'<image id="{index}" name={quoteattr(f"p{index}.jpg")} width="{SIZE[1]}" height="{SIZE[0]}">'
                f'<mask label="car" rle="{", ".join(map(str, runs(mask)))}" left="{left}" top="{top}" '
                f'width="{right - left}" height="{bottom - top}" z_order="1"/>'
                f'<polygon label="road" points="{points}" z_order="0"/>'
            )
            if box:
                parts.append('<box label="car" xtl="1" ytl="1" xbr="5" ybr="5" z_order="0"/>')
            parts.append("</image>")
        (root / "annotations.xml").write_text("".join(parts) + "</annotations>")

    return make


class BitWriter:
    def __init__(self):
        self.bits = []

    def write(self, value, count):
        self.bits += [int(bit) for bit in format(value, f"0{count}b")]

    def bytes(self):
        return np.packbits(self.bits).tolist()


def brush(mask):
    """A mask as Label Studio packs it: four channels of 8 bits, in runs of up to 256 and single words."""
    words = np.repeat(mask.ravel().astype(int) * 255, 4)
    writer = BitWriter()
    writer.write(len(words), 32)
    writer.write(8 - 1, 5)
    for length in (3, 4, 8, 8):
        writer.write(length - 1, 4)
    place = 0
    while place < len(words):
        end = place + 1
        while end < len(words) and words[end] == words[place] and end - place < 256:
            end += 1
        if end - place < 3:
            # Words that are given one by one.
            end = min(place + 5, len(words))
            writer.write(0, 1)
            writer.write(0, 2)
            writer.write(end - place - 1, 3)
            for word in words[place:end]:
                writer.write(int(word), 8)
        else:
            kind, count = (1, 4) if end - place <= 16 else (2, 8)
            writer.write(1, 1)
            writer.write(kind, 2)
            writer.write(end - place - 1, count)
            writer.write(int(words[place]), 8)
        place = end
    return writer.bytes()


def label_studio(with_brush):
    def make(root):
        tasks = []
        for index in range(COUNT):
            save(photo(index), root / f"p{index}.jpg")
            size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
            results = []
            for value, (name, box) in enumerate(zip(NAMES[1:], boxes(index), strict=True), start=1):
                if with_brush:
                    shape = {"format": "rle", "rle": brush(truth(index) == value), "brushlabels": [name]}
                    results.append({"type": "brushlabels", "value": shape, **size})
                else:
                    points = [[100 * x / SIZE[1], 100 * y / SIZE[0]] for x, y in corners(box)]
                    shape = {"points": points, "closed": True, "polygonlabels": [name]}
                    results.append({"type": "polygonlabels", "value": shape, **size})
            image = f"/data/upload/3/0123abcd-p{index}.jpg" if index else "/data/local-files/?d=photos/p0.jpg"
            cancelled = {"was_cancelled": True, "result": []}
            tasks.append({"id": index, "data": {"image": image}, "annotations": [cancelled, {"result": results}]})
        (root / "project.json").write_text(json.dumps(tasks))

    return make


def encoded(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def labelme(root):
    for index in range(COUNT):
        save(photo(index), root / f"p{index}.jpg")
        road, car = boxes(index)
        left, top, right, bottom = car
        mask = base64.b64encode(encoded(Image.fromarray(np.ones((bottom - top, right - left), bool)))).decode()
        shapes = [
            {"label": "road", "points": corners(road), "shape_type": "polygon"},
            {"label": "car", "points": [[left, top], [right - 1, bottom - 1]], "shape_type": "mask", "mask": mask},
        ]
        tree = {"version": "5.5.0", "shapes": shapes, "imagePath": f"..\\photos\\p{index}.jpg", "imageData": None}
        tree |= {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        (root / f"p{index}.json").write_text(json.dumps(tree))


def compressed(mask):
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def coco(segmentation):
    """Files of a training and a validation split; `segmentation` makes that of a box and a mask."""

    def make(root):
        categories = [{"id": 7, "name": "road"}, {"id": 9, "name": "car"}]
        for split, indices in (("train", (0, 1)), ("val", (2,))):
            images, annotations = [], []
            for index in indices:
                save(photo(index), root / f"{split}2017/p{index}.jpg")
                images.append({"id": 40 + index, "file_name": f"p{index}.jpg", "height": SIZE[0], "width": SIZE[1]})
                # The car first: what lies on top is told by the size.
                for value in (2, 1):
                    left, top, right, bottom = box = boxes(index)[value - 1]
                    mask = np.zeros(SIZE, bool)
                    mask[top:bottom, left:right] = True
                    annotations.append(
                        {
                            "id": len(annotations),
                            "image_id": 40 + index,
                            "category_id": categories[value - 1]["id"],
                            "area": int(mask.sum()),
                            "segmentation": segmentation(box, mask),
                        }
                    )
            tree = {"images": images, "annotations": annotations, "categories": categories}
            (root / "annotations").mkdir(exist_ok=True)
            (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(tree))

    return make


def supervisely(root):
    for index in range(COUNT):
        save(photo(index), root / f"ds/img/p{index}.jpg")
        road, car = boxes(index)
        left, top, right, bottom = car
        bitmap = np.zeros((bottom - top, right - left, 4), np.uint8)
        bitmap[..., :] = 255
        data = base64.b64encode(zlib.compress(encoded(Image.fromarray(bitmap)))).decode()
        outline = [[x - (x == road[2]), y - (y == road[3])] for x, y in corners(road)]
        objects = [
            {"classTitle": "road", "geometryType": "polygon", "points": {"exterior": outline, "interior": []}},
            {"classTitle": "car", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [left, top]}},
        ]
        (root / "ds/ann").mkdir(parents=True, exist_ok=True)
        tree = {"size": {"height": SIZE[0], "width": SIZE[1]}, "objects": objects}
        (root / f"ds/ann/p{index}.jpg.json").write_text(json.dumps(tree))
    classes = [{"title": name, "shape": "any", "color": "#808080"} for name in NAMES[1:]]
    (root / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
