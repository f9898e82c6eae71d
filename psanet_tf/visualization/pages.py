"""Self-contained HTML pages: images are inside the file, nothing is fetched."""

import base64
import io
import os
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from psanet_tf import __version__
from psanet_tf.files import atomic_file


def write_page(path: str | os.PathLike, template: str, **context: Any) -> None:
    """Renders one of this package's templates into a file.

    Args:
        path: where to.
        template: name of a file in ``visualization/templates``.
        **context: its variables. All text is escaped; `data_uri` is there as a filter.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("psanet_tf.visualization"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    text = environment.get_template(template).render(version=__version__, **context)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def data_uri(image: np.ndarray, quality: int | None = None) -> str:
    """An image as text for an ``src`` attribute.

    Args:
        image: uint8 [H, W, 3] or [H, W].
        quality: of a JPEG, up to 95; None makes a PNG.
    """
    stream = io.BytesIO()
    drawn = Image.fromarray(np.asarray(image))
    if quality is None:
        drawn.save(stream, format="PNG")
    else:
        drawn.save(stream, format="JPEG", quality=quality)
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def fitted(image: np.ndarray, width: int, flat: bool = False) -> np.ndarray:
    """The image, reduced to `width` pixels where it is wider; `flat` keeps colours that stand for labels unmixed."""
    if image.shape[1] <= width:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    method = Image.Resampling.NEAREST if flat else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize((width, height), method))
