"""Files of every form, with the pixels that they hold, made without the package's readers.

    python tests/data/image_forms.py

writes the table of docs/data.md from what the readers do with them.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
TURNED = {
    1: lambda array: array,
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: array[::-1, ::-1].swapaxes(0, 1),
    8: lambda array: np.rot90(array),
}


class Form(NamedTuple):
    """Attributes:
    name: as in the table.
    suffix: of the file.
    make: function of (random generator, (rows, columns), orientation) -> (bytes, uint8 [H, W, 3] or None if the form
        is refused as an image, uint8 [H, W] or None if it is refused as labels).
    orientations: whether the form can have a tag for it.
    """

    name: str
    suffix: str
    make: object
    orientations: bool = False


def exif(orientation, order="<"):
    """An Exif block of two entries, without ``Exif\\0\\0``."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 7, 0) + struct.pack(
        f"{order}HHIHH", 0x0112, 3, 1, orientation, 0
    )
    return start + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4)


def png(samples, depth, color_type, chunks=(), interlaced=False):
    """Bytes of a PNG file.

    Args:
        samples: integers [H, W] or [H, W, C].
        depth, color_type: as the format numbers them.
        chunks: (type, data) that come before the pixels.
        interlaced: Adam7.
    """
    samples = samples.reshape(*samples.shape[:2], -1)
    passes = [samples[row::down, column::right] for row, column, down, right in ADAM7] if interlaced else [samples]
    lines = b"".join(b"\0" + _packed(row, depth) for part in passes if part.size for row in part)
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def _packed(row, depth):
    if depth == 16:
        return row.astype(">u2").tobytes()
    if depth == 8:
        return row.astype(np.uint8).tobytes()
    bits = row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def on_white(color, alpha):
    return np.floor(color * (alpha / 255) + (255 - alpha) + 0.5).astype(np.uint8)


def _png_form(depth, color_type, transparent=False):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]

    def make(rng, size, orientation):
        most = 2**depth
        # Few values, so that some pixels have the transparent one.
        samples = rng.integers(0, most, (4, channels))[rng.integers(0, 4, size)] if transparent else None
        samples = rng.integers(0, most, (*size, channels)) if samples is None else samples
        if rng.random() < 0.5 and color_type == 0 and depth == 16:
            samples %= 256
        samples[samples == 254] = 253  # the largest value that a label file may hold, beside 255
        chunks, alpha = [], np.full(size, 255)
        eight_bits = samples >> 8 if depth == 16 else samples * 255 // (most - 1)
        color = np.repeat(eight_bits[..., :1], 3, 2) if color_type in (0, 4) else eight_bits[..., :3]
        if color_type in (4, 6):
            alpha = eight_bits[..., -1]
        if color_type == 3:
            # Some colours twice: only the index tells the values apart.
            palette = rng.integers(0, 256, (most, 3)) // 64 * 64
            chunks.append((b"PLTE", palette.astype(np.uint8).tobytes()))
            color = palette[samples[..., 0]]
            if transparent:
                alphas = rng.integers(0, 256, rng.integers(1, most + 1))
                chunks.append((b"tRNS", alphas.astype(np.uint8).tobytes()))
                alpha = np.concatenate([alphas, np.full(most - len(alphas), 255)])[samples[..., 0]]
        elif transparent:
            key = samples[0, 0]
            chunks.append((b"tRNS", key.astype(">u2").tobytes()))
            alpha = np.where((samples == key).all(-1), 0, 255)
        if orientation is not None:
            chunks.insert(0, (b"eXIf", exif(orientation, rng.choice(["<", ">"]))))
        if rng.random() < 0.3:
            chunks.insert(0, (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)))
        contents = png(samples, depth, color_type, chunks, interlaced=bool(rng.random() < 0.3))
        image = None if depth == 16 and transparent else on_white(color, alpha[..., None])
        label = samples[..., 0] if color_type == 3 or (color_type == 0 and depth >= 8) else None
        if label is not None and label.max() > 255:
            label = None
        turn = TURNED[orientation or 1]
        return contents, *(None if array is None else turn(array).astype(np.uint8) for array in (image, label))

    return make


def _smooth(rng, size, channels):
    """Pixels that JPEG keeps roughly."""
    coarse = rng.integers(0, 256, (4, 5, channels)).astype(np.uint8)
    parts = [Image.fromarray(coarse[..., index]).resize(size[::-1]) for index in range(channels)]
    return np.stack([np.asarray(part) for part in parts], -1)


def _saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _jpeg_form(mode, **options):
    def make(rng, size, orientation):
        pixels = _smooth(rng, size, len(mode))
        pixels = pixels[..., 0] if mode == "L" else pixels
        tag = {} if orientation is None else {"exif": b"Exif\0\0" + exif(orientation, rng.choice(["<", ">"]))}
        contents = _saved(Image.fromarray(pixels, mode), "JPEG", quality=90, **options, **tag)
        decoded = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
        return contents, TURNED[orientation or 1](decoded), None

    return make


def _pillow_form(mode, kind, frames=1, **options):
    """Lossless forms that Pillow writes; what was written is what must be read."""

    def make(rng, size, orientation):
        channels = {"1": 1, "L": 1, "P": 1, "I;16": 1, "I": 1, "F": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
        pixels = rng.integers(0, 256, (*size, channels)).astype(np.uint8)
        label, alpha = None, np.full((*size, 1), 255)
        if mode == "P":
            palette = rng.integers(0, 256, (256, 3)).astype(np.uint8)
            image = Image.fromarray(pixels[..., 0])
            image.putpalette(palette.tobytes())
            color = palette[pixels[..., 0]]
            if "transparency" in options:
                alpha = np.where(pixels == options["transparency"], 0, 255)
        elif mode == "1":
            image = Image.fromarray(pixels[..., 0] > 127)
            color = np.repeat(np.where(pixels > 127, 255, 0), 3, -1)
        elif mode in ("I;16", "I", "F"):
            values = rng.integers(0, 65536, size)
            image = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
            color = np.repeat(values[..., None] >> 8, 3, -1) if mode == "I;16" else None
        else:
            image = Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels, mode)
            color = np.repeat(pixels[..., :1], 3, -1) if mode in ("L", "LA") else pixels[..., :3]
            if mode in ("LA", "RGBA"):
                alpha = pixels[..., -1:]
            if mode == "CMYK":
                color = np.asarray(image.convert("RGB"))
        tag = {} if orientation is None else {"exif": _exif_for(kind, orientation)}
        if frames > 1:
            tag |= {
                "save_all": True,
                "append_images": [Image.new(mode, size[::-1], index) for index in range(frames - 1)],
            }
        contents = _saved(image, kind, **options, **tag)
        if color is None:
            return contents, None, label
        return contents, TURNED[orientation or 1](on_white(color, alpha)), label

    return make


def _exif_for(kind, orientation):
    if kind == "TIFF":
        block = Image.Exif()
        block[0x0112] = orientation
        return block
    return b"Exif\0\0" + exif(orientation)


FORMS = [
    Form("JPEG, RGB", ".jpg", _jpeg_form("RGB"), True),
    Form(
        "JPEG, RGB without chroma subsampling, progressive",
        ".jpg",
        _jpeg_form("RGB", subsampling=0, progressive=True),
        True,
    ),
    Form("JPEG, grey", ".jpg", _jpeg_form("L"), True),
    Form("JPEG, CMYK", ".jpg", _jpeg_form("CMYK"), True),
    *(Form(f"PNG, grey, {depth}-bit", ".png", _png_form(depth, 0), True) for depth in (1, 2, 4, 8, 16)),
    *(
        Form(f"PNG, grey, {depth}-bit, a transparent level", ".png", _png_form(depth, 0, True), True)
        for depth in (1, 2, 4, 8, 16)
    ),
    *(Form(f"PNG, grey with alpha, {depth}-bit", ".png", _png_form(depth, 4), True) for depth in (8, 16)),
    *(Form(f"PNG, RGB, {depth}-bit", ".png", _png_form(depth, 2), True) for depth in (8, 16)),
    *(
        Form(f"PNG, RGB, {depth}-bit, a transparent colour", ".png", _png_form(depth, 2, True), True)
        for depth in (8, 16)
    ),
    *(Form(f"PNG, RGB with alpha, {depth}-bit", ".png", _png_form(depth, 6), True) for depth in (8, 16)),
    *(Form(f"PNG, palette, {depth}-bit", ".png", _png_form(depth, 3), True) for depth in (1, 2, 4, 8)),
    *(
        Form(f"PNG, palette with transparency, {depth}-bit", ".png", _png_form(depth, 3, True), True)
        for depth in (1, 2, 4, 8)
    ),
    Form("BMP, black and white", ".bmp", _pillow_form("1", "BMP")),
    Form("BMP, grey", ".bmp", _pillow_form("L", "BMP")),
    Form("BMP, palette", ".bmp", _pillow_form("P", "BMP")),
    Form("BMP, RGB", ".bmp", _pillow_form("RGB", "BMP")),
    Form("GIF, palette", ".gif", _pillow_form("P", "GIF", optimize=False)),
    Form("GIF, a transparent colour", ".gif", _pillow_form("P", "GIF", optimize=False, transparency=7)),
    Form("GIF, animated", ".gif", _pillow_form("P", "GIF", frames=3, optimize=False)),
    Form("TIFF, black and white", ".tif", _pillow_form("1", "TIFF"), True),
    Form("TIFF, grey", ".tif", _pillow_form("L", "TIFF"), True),
    Form("TIFF, grey, 16-bit", ".tif", _pillow_form("I;16", "TIFF"), True),
    Form("TIFF, 32-bit integers", ".tif", _pillow_form("I", "TIFF")),
    Form("TIFF, 32-bit floating point", ".tif", _pillow_form("F", "TIFF")),
    Form("TIFF, grey with alpha", ".tif", _pillow_form("LA", "TIFF"), True),
    Form("TIFF, palette", ".tif", _pillow_form("P", "TIFF"), True),
    Form("TIFF, RGB", ".tif", _pillow_form("RGB", "TIFF"), True),
    Form("TIFF, RGB with alpha", ".tif", _pillow_form("RGBA", "TIFF", compression="tiff_lzw"), True),
    Form("TIFF, CMYK", ".tif", _pillow_form("CMYK", "TIFF"), True),
    Form("TIFF, several pages", ".tif", _pillow_form("RGB", "TIFF", frames=3)),
    Form("WebP, RGB", ".webp", _pillow_form("RGB", "WEBP", lossless=True), True),
    Form("WebP, RGB with alpha", ".webp", _pillow_form("RGBA", "WEBP", lossless=True, exact=True), True),
    Form("WebP, animated", ".webp", _pillow_form("RGB", "WEBP", frames=3, lossless=True)),
]

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"
_BEGIN, _END = "<!-- table of forms: tests/data/image_forms.py -->\n", "<!-- end of the table of forms -->\n"


def document_text():
    """docs/data.md with the table made anew."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(_BEGIN)
    return before + _BEGIN + table() + _END + rest.split(_END)[1]


def table():
    """Markdown; forms that are read, or refused, alike are in one row."""
    images, labels = {}, {}
    for form in FORMS:
        image, training, label = _answers(form)
        container, _, kind = form.name.partition(", ")
        images.setdefault((container, image, training), []).append(kind)
        labels.setdefault(label, {}).setdefault(container, []).append(kind)
    lines = ["| image | form | how it is read, or why not | in training |", "| --- | --- | --- | --- |"]
    lines += [f"| {file} | {'; '.join(kinds)} | {how} | {where} |" for (file, how, where), kinds in images.items()]
    lines += ["", "| labels | how they are read, or why not |", "| --- | --- |"]
    for answer, containers in labels.items():
        forms = ". ".join(f"{file}: {'; '.join(kinds)}" for file, kinds in containers.items())
        lines.append(f"| {forms} | {answer} |")
    return "\n".join(lines) + "\n"


def _answers(form):
    """What the readers do with a file of this form: as an image, in training, as labels."""
    from psanet_tf.data import pixels

    # Values up to 255 of 16 bits, so that they can be labels.
    contents, _, _ = next(
        made
        for made in (form.make(np.random.default_rng(seed), (2, 3), None) for seed in range(99))
        if made[2] is not None or form.name != "PNG, grey, 16-bit"
    )
    label = "the index" if "palette" in form.name else "the values"
    label += ", if none is above 255" if "16-bit" in form.name else ""
    label = _refusal(pixels.decode_label, contents) or label
    refused = _refusal(pixels.decode_image, contents)
    if refused:
        return refused, "-", label
    how = [text for word, text in _HOW.items() if word in form.name]
    how += ["turned as its tag says"] if form.orientations else []
    return ", ".join(how) or "as it is", "read as it is" if pixels.is_read_by_graph(contents) else "PNG copy", label


def _refusal(decode, contents):
    try:
        decode(contents, "FILE")
    except ValueError as error:
        return "refused: " + str(error).removeprefix("FILE: ").rpartition("; ")[2]
    return None


_HOW = {
    "grey": "three equal channels",
    "black and white": "0 and 255",
    "16-bit": "the upper 8 bits",
    "palette": "the palette's colours",
    "transparen": "laid on white",
    "alpha": "laid on white",
    "CMYK": "turned to RGB by Pillow",
    "animated": "the first frame",
    "pages": "the first page",
}


if __name__ == "__main__":
    DOCUMENT.write_text(document_text(), encoding="utf-8")
