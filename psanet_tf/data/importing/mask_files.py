"""Files of masks, read as values or as colours.

More forms than training reads (1 to 16 bits, RGB, TIFF, BMP, GIF): whoever imports says what values and colours mean,
so none of them has to be guessed.
"""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from psanet_tf.data import headers
from psanet_tf.data.findings import counted
from psanet_tf.data.importing.source import UNLABELLED
from psanet_tf.data.palettes import PaletteAgreement
from psanet_tf.data.pixels import label_colors
from psanet_tf.data.turning import turned

_LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")
_LARGEST = (1 << 16) - 1
_DEEP_COLORS = ((16, headers.RGB), (16, headers.RGB_ALPHA), (16, headers.GREY_ALPHA))


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A file with the labels of one image.

    Attributes:
        path: of the file.
        kind: whether its values or its colours are read.
    """

    path: Path
    kind: Literal["value", "colour"]

    @property
    def where(self) -> str:
        return str(self.path)

    def codes(self, size: tuple[int, int]) -> np.ndarray:
        """int32 [H, W], of the file's own size; see `Labels`."""
        contents = self.path.read_bytes()
        pixels = _pixels(contents, self.path)
        if headers.is_png(contents) and headers.png_kind(contents) in _DEEP_COLORS:
            raise ValueError(f"{self.path}: colours of 16 bits, of which 8 would be lost: save masks as 8-bit RGB PNG")
        by_color = self.kind == "colour"
        codes = _color_codes(pixels, self.path) if by_color else _values(pixels, contents, self.path)
        return turned(codes, headers.orientation(contents))


@dataclasses.dataclass(frozen=True)
class ClassMasks:
    """A file per class of one image, in which every value but 0 is the class.

    Attributes:
        paths: {place of the class in `Keys.names`: file}.
        names: of all classes.
        overlap: what pixels of several classes are: "stop", "last" (the later class), or "ignore" (no label).
    """

    paths: dict[int, Path]
    names: tuple[str, ...]
    overlap: Literal["stop", "last", "ignore"] = "stop"

    @property
    def where(self) -> str:
        return str(next(iter(self.paths.values())))

    def codes(self, size: tuple[int, int]) -> np.ndarray:
        """int32 [H, W]; see `Labels`.

        Raises:
            ValueError: a mask of more than two values, masks of several sizes, or pixels of several classes.
        """
        unlabelled = len(self.names)
        codes = None
        for index, path in sorted(self.paths.items()):
            values = MaskFile(path, "value").codes(size)
            found = np.unique(values)
            if len(found) > 2 or (len(found) == 2 and found[0] != 0):
                raise ValueError(
                    f"{path}: the mask of one class must be 0 and one other value, this holds {found[:8].tolist()}"
                    f"{' and more' if len(found) > 8 else ''}: save it anew, without smoothing; if it is not one of "
                    "several masks, one for each class, --masks names the folder that counts"
                )
            if codes is None:
                codes, first = np.full(values.shape, unlabelled, np.int32), path
                covered = np.zeros(values.shape, bool)
            if values.shape != codes.shape:
                raise ValueError(f"{path} is of {list(values.shape)} pixels, {first} of {list(codes.shape)}")
            inside = values > 0
            both = inside & covered
            if both.any() and self.overlap == "stop":
                other = self.names[codes[both][0]]
                raise ValueError(
                    f"{path}: {counted(int(both.sum()), 'pixel')} are {other!r}, too: --overlap last takes the later "
                    f"class in this order ({', '.join(self.names)}), --overlap ignore leaves them without a label "
                    f"({UNLABELLED})"
                )
            codes[inside] = index
            covered |= inside
            if self.overlap == "ignore":
                codes[both] = unlabelled
        return codes


def kind_of_masks(
    paths: Sequence[Path], wanted: Literal["value", "colour"] | None, has_palette: bool
) -> tuple[Literal["value", "colour"], str]:
    """Whether values or colours are to be read.

    Args:
        paths: of all masks.
        wanted: what the user says.
        has_palette: whether there is a file that says what the colours mean.

    Returns:
        (kind, the form of the files in words).

    Raises:
        ValueError: files of forms that do not keep values; palettes whose index means another class in each file, and
            nothing says that colours are to be read.
    """
    modes, lossy, unreadable = {}, [], []
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.format not in _LOSSLESS:
                    lossy.append(path)
                if getattr(image, "n_frames", 1) > 1:
                    unreadable.append(f"{path} holds {image.n_frames} pages or frames, one was expected")
                modes.setdefault(image.mode, path)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            unreadable.append(f"{path} is not a readable image: {error}")
    if unreadable:
        raise ValueError(f"{counted(len(unreadable), 'mask')} cannot be read: {unreadable[0]}")
    if lossy:
        raise ValueError(
            f"{counted(len(lossy), 'mask')} of {len(paths)} in JPEG or WebP (first: {lossy[0]}), which change values "
            "along every edge: export the masks anew as PNG; saving these files as PNG does not bring the values back"
        )
    unknown = [mode for mode in modes if mode not in _MODES]
    if unknown:
        raise ValueError(
            f"{modes[unknown[0]]}: a mask of mode {unknown[0]} has neither values nor colours of classes: save masks "
            "as grey, RGB or palette PNG"
        )
    form = ", ".join(_MODES[mode] for mode in sorted(modes))
    if wanted is not None:
        return wanted, form
    if modes.keys() <= {"RGB", "RGBA", "P"} and has_palette:
        return "colour", form
    if modes.keys() & {"RGB", "RGBA"}:
        grey = all(_is_grey(path) for path in paths)
        return ("value" if grey else "colour"), form
    if "P" in modes:
        _check_palettes(paths)
    return "value", form


_MODES = {
    "1": "1 bit", "L": "grey", "LA": "grey with alpha", "P": "palette", "RGB": "RGB", "RGBA": "RGB with alpha",
    "I;16": "grey, 16 bits", "I": "grey, 32 bits", "F": "floating point",
}  # fmt: skip


def _check_palettes(paths):
    agreement = PaletteAgreement()
    for path in paths:
        with Image.open(path) as image:
            is_png = image.format == "PNG"
        agreement.add(path, label_colors(path.read_bytes(), path) if is_png else None)
    if problem := agreement.problem():
        raise ValueError(
            f"{problem.partition('. ')[0]}, so an index is another class in every file: --labels rgb reads the "
            "colours, with a --palette that says what they mean; --labels values if the indices are right after all"
        )


def _is_grey(path):
    pixels = _pixels(path.read_bytes(), path)
    if isinstance(pixels, Image.Image):
        return False
    return pixels.ndim == 2 or bool((pixels[..., :1] == pixels[..., 1:3]).all())


def _pixels(contents, path):
    """[H, W] or [H, W, C] as stored; of a palette, whose index and colours both may count, the image of Pillow."""
    try:
        image = Image.open(io.BytesIO(contents))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable image: {error}") from None
    return image if image.mode == "P" else np.asarray(image)


def _color_codes(pixels, path):
    if isinstance(pixels, Image.Image):
        pixels = np.asarray(pixels.convert("RGBA"))
    if pixels.dtype != np.uint8 and pixels.dtype != bool:
        raise ValueError(f"{path}: values of {pixels.dtype} are no colours: leave out --labels rgb")
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, -1)
    if pixels.shape[-1] == 2:
        pixels = np.concatenate([np.repeat(pixels[..., :1], 3, -1), pixels[..., 1:]], -1)
    _check_opaque(pixels, path)
    pixels = pixels.astype(np.int32)
    return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def _values(pixels, contents, path):
    if isinstance(pixels, Image.Image):
        return np.asarray(pixels).astype(np.int32)
    if pixels.dtype.kind == "f":
        raise ValueError(f"{path}: floating point numbers are no labels: save whole numbers, array.astype('uint16')")
    if pixels.ndim == 3:
        _check_opaque(pixels, path)
        if pixels.shape[-1] > 2 and (pixels[..., :1] != pixels[..., 1:3]).any():
            raise ValueError(f"{path}: colours, where other masks hold values: --labels rgb reads all by colour")
        pixels = pixels[..., 0]
    values = pixels.astype(np.int32)
    if headers.is_png(contents):
        depth, color_type = headers.png_kind(contents)
        if color_type == headers.GREY and depth in (2, 4):
            # Pillow scales these to 0..255.
            values //= 255 // (2**depth - 1)
    if values.min() < 0 or values.max() > _LARGEST:
        raise ValueError(f"{path}: values from {values.min()} to {values.max()}, labels must be 0..{_LARGEST}")
    return values


def _check_opaque(pixels, path):
    if pixels.shape[-1] in (2, 4) and (pixels[..., -1] != 255).any():
        count = int((pixels[..., -1] != 255).sum())
        raise ValueError(
            f"{path}: {counted(count, 'pixel')} transparent, of which nobody knows what they are: save the masks "
            "without alpha, with a value or a colour of its own for what has no label"
        )
