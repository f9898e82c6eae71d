"""The kernel of a trained first convolution for images of another number of channels."""

import numpy as np

FIRST_CONVOLUTIONS = ("repeat", "mean", "new")


def folded_kernel(kernel: np.ndarray, channels: int, how: str) -> np.ndarray:
    """A first convolution's kernel for another number of channels, of about the same answers.

    What the network was trained on is normalized, and so are the new channels; with a sum of weights per pixel as
    before, activations keep their size. The idea is that of timm (`adapt_input_conv`).

    Args:
        kernel: [kh, kw, C, out], of a convolution that was trained on C channels.
        channels: wanted in place of C.
        how: "repeat": channel i gets the weights of channel i mod C, all scaled by C / channels; of a single channel
            their sum. "mean": every channel gets the mean of the weights over all C, scaled likewise.

    Returns:
        [kh, kw, channels, out], of the kernel's dtype; the kernel itself if it has so many channels.

    Raises:
        ValueError: another `how`.
    """
    there = kernel.shape[2]
    if how not in ("repeat", "mean"):
        raise ValueError(f"how must be 'repeat' or 'mean', got {how!r}")
    if there == channels:
        return kernel
    wide = np.asarray(kernel, np.float64)
    if how == "mean" or channels == 1:
        folded = np.repeat(wide.mean(axis=2, keepdims=True), channels, axis=2)
    else:
        folded = wide[:, :, np.arange(channels) % there]
    return (folded * (there / channels)).astype(kernel.dtype)
