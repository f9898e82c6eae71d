"""How the bytes of a file become pixels and label values: the one description that all readers follow.

Images: turned as their Exif orientation says; grey spread to three channels; of 16 bits the upper 8; palettes
resolved; transparency laid on white; of several frames the first. That is for photographs; where a dataset has another
number of channels, or of bits, values are read as they are stored (`stored_values`). Labels: the values of a PNG as
they are stored, of a palette PNG the index; the colour only where the configuration says which colours are classes.
What these rules cannot give a sure answer for is refused with what to do.

Training and exported models follow them in TensorFlow operations (`decoding`), as far as those are exact
(`is_read_by_graph`); docs/data.md has the table.
"""

import io
import os
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from psanet_tf.data import headers
from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.data.stored_values import NPY_MAGIC, TIFF_MAGICS, is_plain_npy, read_stored
from psanet_tf.data.turning import turned


def decode_image(contents: bytes, where: str | os.PathLike, images: ImageFormat = PHOTOGRAPHS) -> np.ndarray:
    """Bytes of an image file -> [H, W, C] of the format's dtype; photographs uint8 [H, W, 3], RGB.

    Args:
        contents: bytes of a JPEG, PNG, BMP, GIF, TIFF or WebP file, another format that Pillow reads, or ``.npy`` of
            uint8 [H, W, 3]; for images that are no photographs what `read_stored` takes.
        where: what messages call it, such as its path.
        images: `ImageFormat`.

    Raises:
        ValueError: no image, cut short, or of a form whose pixels have no sure meaning in 8 bits; one of other channels
            or another dtype than images that are no photographs have. The message names `where`.
    """
    if not images.is_photograph or contents.startswith(NPY_MAGIC):
        return read_stored(contents, where, images)
    image = _open(contents, where)
    turn = _orientation(image, contents)
    _refuse_unsure(image, contents, where)
    try:
        pixels = _rgb(image, contents)
    except ValueError as error:
        raise ValueError(f"{where}: a {image.format} of mode {image.mode} cannot be read ({error}): {_SAVE}") from None
    return turned(pixels, turn)


def decode_label(contents: bytes, where: str | os.PathLike) -> np.ndarray:
    """Bytes of a label file -> uint8 [H, W], the values as stored.

    Args:
        contents: bytes of a grey PNG of 8 bits, of 16 bits with values up to 255, or of a palette PNG.
        where: what messages call it, such as its path.

    Raises:
        ValueError: any other form; the message names `where` and says what to do.
    """
    image = _open(contents, where)
    if image.format != "PNG":
        raise _other_label(where, f"{image.format} of mode {image.mode}", _label_advice(image))
    depth, color_type = headers.png_kind(contents)
    grey = color_type == headers.GREY and depth in (8, 16)
    if not grey and color_type != headers.PALETTE:
        raise _other_label(where, f"{depth}-bit {_COLORS[color_type]} PNG", _png_label_advice(image, depth, color_type))
    values = np.asarray(image)
    if values.max() > 255:
        raise _other_label(
            where, f"16-bit grey PNG with values up to {values.max()}", "no class can have a number above 255"
        )
    return turned(values.astype(np.uint8), headers.orientation(contents))


def decode_label_colors(contents: bytes, where: str | os.PathLike) -> np.ndarray:
    """Bytes of a label file -> int32 [H, W], its colours as ``red * 65536 + green * 256 + blue``.

    Args:
        contents: bytes of a PNG of at most 8 bits: RGB, a palette, grey, or one of these with alpha.
        where: what messages call it, such as its path.

    Raises:
        ValueError: any other form, or pixels that are transparent; the message names `where` and says what to do.
    """
    image = _open(contents, where)
    wanted = f"{where}: labels whose colours are read must be an opaque PNG of 8 bits"
    if image.format != "PNG":
        raise ValueError(f"{wanted}, this is {image.format} of mode {image.mode}; {_label_advice(image)}")
    depth, color_type = headers.png_kind(contents)
    # Of 16 bits, and of grey of few bits with a transparent level, decoders make different colours.
    if depth == 16 or (depth < 8 and color_type == headers.GREY and "transparency" in image.info):
        raise ValueError(f"{wanted}, this is a {depth}-bit {_COLORS[color_type]} PNG; {_SAVE}")
    pixels = np.asarray(image.convert("RGBA")).astype(np.int32)
    transparent = int((pixels[..., 3] != 255).sum())
    if transparent:
        raise ValueError(f"{wanted}, {transparent} of its pixels are transparent; give them a colour and {_SAVE}")
    return turned(pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2], headers.orientation(contents))


def label_colors(contents: bytes, where: str | os.PathLike) -> dict[int, tuple[int, int, int]] | None:
    """The colours that a palette PNG gives the values that occur in it.

    Args:
        contents, where: as of `decode_label`.

    Returns:
        {value: (red, green, blue)}; None of any other form.

    Raises:
        ValueError: no image.
    """
    image = _open(contents, where)
    if image.mode != "P":
        return None
    palette = np.zeros((256, 3), np.uint8)
    colors = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette[: len(colors)] = colors
    return {int(value): tuple(palette[value].tolist()) for value in np.unique(np.asarray(image))}


def is_read_by_graph(file: bytes | BinaryIO, images: ImageFormat = PHOTOGRAPHS) -> bool:
    """Whether `decoding.decode_image` reads an image (exactly as `decode_image` does) or refuses it.

    Args:
        file: a binary file, or its bytes.
        images: `ImageFormat`.
    """
    file = io.BytesIO(file) if isinstance(file, bytes) else file
    start = file.read(len(headers.PNG_MAGIC))
    if headers.is_png(start):
        return True
    if not images.is_photograph and start.startswith(NPY_MAGIC):
        file.seek(0)
        return is_plain_npy(file, images)
    if not headers.is_jpeg(start):
        return False
    file.seek(0)
    try:
        return Image.open(file).mode != "CMYK"
    except (OSError, SyntaxError, ValueError):
        return True  # damaged: refused by both


def is_plain(contents: bytes, images: ImageFormat = PHOTOGRAPHS) -> bool:
    """Whether any decoder reads an image as `decode_image` does: upright, opaque, 8-bit grey or RGB, JPEG or PNG.

    Of images that are no photographs: upright, JPEG or PNG.
    """
    if not images.is_photograph:
        known = headers.is_jpeg(contents) or headers.is_png(contents)
        return known and headers.orientation(contents) == headers.UPRIGHT
    if headers.is_jpeg(contents):
        return is_read_by_graph(contents) and headers.orientation(contents) == headers.UPRIGHT
    if not headers.is_png(contents) or headers.orientation(contents) != headers.UPRIGHT:
        return False
    transparent = any(name == b"tRNS" for name, _ in headers.png_chunks(contents))
    return headers.png_kind(contents) in ((8, headers.GREY), (8, headers.RGB)) and not transparent


def damage(contents: bytes) -> str | None:
    """What a strict decoder finds wrong in the middle of a JPEG, where others put grey or noise; None if nothing.

    Args:
        contents: bytes of any file.
    """
    import simplejpeg

    if not headers.is_jpeg(contents):
        return None
    try:
        simplejpeg.decode_jpeg(contents, colorspace="GRAY", fastdct=True, fastupsample=True, min_factor=8)
    except ValueError as error:
        return str(error)
    return None


_COLORS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_SAVE = "save it as 8-bit RGB"


def _open(contents, where):
    try:
        image = Image.open(io.BytesIO(contents))
        image.load()
    except UnidentifiedImageError:
        if contents.startswith(TIFF_MAGICS):
            raise ValueError(
                f"{where} is a TIFF that is no photograph, of more channels or other numbers: set data.channels and "
                "data.dtype to those of the images"
            ) from None
        raise ValueError(f"{where} is not a readable image: unknown format") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} is not a readable image: {error}") from None
    return image


def _orientation(image, contents):
    if headers.is_jpeg(contents) or headers.is_png(contents):
        return headers.orientation(contents)
    # Pillow turns TIFF files itself.
    return headers.exif_orientation(image.info.get("exif", b"")) if image.format == "WEBP" else headers.UPRIGHT


def _refuse_unsure(image, contents, where):
    if image.mode in ("F", "I"):
        raise ValueError(f"{where}: {image.format} of 32-bit numbers, of which nobody knows what is white: {_SAVE}")
    deep = image.format == "PNG" and headers.png_kind(contents)[0] == 16
    if deep and "transparency" in image.info:
        raise ValueError(f"{where}: 16-bit PNG with a transparent colour: {_SAVE}, or with an alpha channel")


def _rgb(image, contents):
    if image.mode.startswith("I;16"):
        # Pillow's own conversion cuts off at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    if image.format == "PNG" and image.mode in ("1", "L"):
        # Pillow scales grey of few bits to 0..255, but not the transparent value.
        scaled = image.convert("L")
        scaled.info["transparency"] = image.info["transparency"] * 255 // (2 ** headers.png_kind(contents)[0] - 1)
        image = scaled
    pixels = np.asarray(image.convert("RGBA")).astype(np.uint16)
    color, alpha = pixels[..., :3], pixels[..., 3:]
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _other_label(where, kind, advice):
    return ValueError(f"{where}: labels must be an 8-bit grey or a palette PNG, this is {kind}; {advice}")


def _label_advice(image):
    if image.format in ("JPEG", "MPO"):
        return "JPEG changes values: export the labels anew as PNG, saving this file as PNG does not bring them back"
    if image.mode in ("L", "P"):
        return "save it as PNG: Image.open(path).save('labels.png') keeps the values"
    return "save the class of each pixel as an 8-bit grey PNG"


def _png_label_advice(image, depth, color_type):
    if color_type == headers.GREY:
        factor = 255 // (2**depth - 1)
        return (
            f"it could mean classes 0 to {2**depth - 1}, or grey levels {factor} apart: save what is meant in 8 bits, "
            f"for classes Image.fromarray(np.asarray(Image.open(path).convert('L')) // {factor}).save(path)"
        )
    channels = np.asarray(image)
    if color_type == headers.GREY_ALPHA or (channels[..., :1] == channels[..., 1:3]).all():
        return "save its first channel alone: Image.open(path).getchannel(0).save(path)"
    return (
        "each colour must become the index of its class: list the colours in a file and set data.label_palette, or let "
        "psanet data import write such labels"
    )
