"""Functions traced for other programs than TensorFlow: in operations that each of them has, and has right."""

import contextlib
from collections.abc import Iterator

from psanet_tf.ops.convolution import stock_convolutions
from psanet_tf.ops.psa_mask import psa_mask_implementation

_portable = False  # set by `portable_operations`


@contextlib.contextmanager
def portable_operations() -> Iterator[None]:
    """Within, in a `tf.function` that is traced within, a network consists of what ONNX, OpenVINO and LiteRT have.

    Stock operations alone; the attention as a whole, without loops, which LiteRT and many readers of ONNX lack or run
    slowly; resizes as matrix products, since every program rounds positions in its own way (ONNX's Resize with aligned
    corners does not even come out at the size where 7 / 13 is rounded down); dilated convolutions as such, not between
    a space-to-batch and a batch-to-space.
    """
    global _portable
    before, _portable = _portable, True
    try:
        with psa_mask_implementation("stock"), stock_convolutions():
            yield
    finally:
        _portable = before


def traced_portably() -> bool:
    """Whether the caller is within `portable_operations`."""
    return _portable
