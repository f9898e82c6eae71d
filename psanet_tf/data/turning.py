"""Images as they are stored, turned to be seen."""

import numpy as np

# Of orientations 1 to 4, and 5 to 8 after exchanging rows and columns: whether (rows, columns) are reversed.
REVERSED = ((False, False), (False, True), (True, True), (True, False))


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, ...] as stored -> as it is to be seen.

    Args:
        array: pixels or labels.
        orientation: 1..8, as Exif counts.
    """
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    rows, columns = REVERSED[(orientation - 1) % 4]
    return np.ascontiguousarray(array[:: -1 if rows else 1, :: -1 if columns else 1])
