"""`PSALayer`: the point-wise spatial attention module."""

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from psanet_tf.feature_sizes import shrunk_size
from psanet_tf.keras_api import keras
from psanet_tf.layers.arguments import (
    FLOAT_DTYPES,
    VARIANTS,
    checked_align_corners,
    checked_block_size,
    checked_bool,
    checked_choice,
    checked_integer,
    checked_mask_size,
    checked_normalization_factor,
)
from psanet_tf.layers.psa_branch import DIRECTIONS, PSABranch, convolution, normalization
from psanet_tf.layers.trainable_flags import set_sublayer_flags, sublayer_flags
from psanet_tf.ops import resize_bilinear
from psanet_tf.ops.psa_attention import BlockSize, size_of
from psanet_tf.ops.psa_mask import IMPLEMENTATIONS

PSA_TYPES = ("collect", "distribute", "bi-direction")


@keras.saving.register_keras_serializable("psanet_tf")
class PSALayer(keras.layers.Layer):
    """Point-wise spatial attention (Zhao et al., "PSANet", ECCV 2018, section 3).

    Every position of a feature map is tied to every other one by a learned weight that depends on both.
    *Collect* gathers: position i weighs all sources j by what i predicts. *Distribute* hands out: position j
    weighs all destinations i by what j predicts. With A the weights and f the reduced features::

        z[i] = sum over j of A[i, j] * f[j] / normalization_factor

    and the output is the input beside BN-ReLU-projected z of both directions.

    Args:
        mid_channels: channels of the reduced features.
        psa_type: ``"collect"``, ``"distribute"`` or ``"bi-direction"`` (both, each with its own weights).
        compact: one weight per position instead of the over-complete mask of one per relative offset; then
            the layer works at one size only.
        shrink_factor: the attention works on features resized to (size - 1) // shrink_factor + 1.
        mask_size: (rows, columns), both odd, of the over-complete mask. Default: 2h - 1 x 2w - 1 with h x w the
            shrunk size that the layer is built for, so that every offset has a weight; needs static H and W. A
            given mask may be smaller: offsets that it does not reach get a weight of 0 before the softmax.
        normalization_factor: divisor of the sums; None for the number of mask entries.
        psa_softmax: softmax over the sources of each destination.
        concat_input: put the input before the result; False gives the result alone.
        synchronized_batch_norm: batch statistics over all replicas.
        implementation: of the window gather, as for `psa_mask`: "auto", "custom" (the compiled op) or "stock".
        block_size: positions of the shrunk map whose attention is computed together: (rows, columns), or rows as wide
            as the map; None for all at once. In blocks neither the mask nor the attention matrix is ever in memory, in
            either pass (see `psanet_tf.ops.psa_attention`). "auto" takes blocks where the mask of an image has more
            than 8.4 million entries (32 MiB in float32: more than 38 x 38 positions with the default mask), from
            where on they are faster on CPUs; where a GPU is visible, on which they are slower, more than 134 million
            (512 MiB, 76 x 76); and where the size is dynamic. Weights and results are the same (to 1e-5). A compact
            layer takes "auto" and None alone, and has its matrix in memory; with implementation="custom" "auto" is
            None.
        variant: "semseg", the original implementation, or "mmseg", MMSegmentation's. That one shrinks with aligned
            corners, as above, only where H and W are both odd, and else to (H // shrink_factor, W // shrink_factor)
            with half-pixel centres; resizes back in the same way; projects with a border of zeros one position wide
            around the map, which the resize back takes in; and its `mask_size` may be even (see `psa_mask`).
        align_corners: for the mmseg variant with ``shrink_factor=1`` only: whether the resize back aligns corners;
            default: False.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Attributes:
        collect, distribute: the `PSABranch` of each direction; None for one that the layer has not.
        proj_conv, proj_bn: the projection back to C channels and its normalization.

    They are there once the layer is built. Each of them, and each sublayer of a `PSABranch`, can be frozen by its
    `trainable`, which files and configurations keep.

    Call arguments:
        inputs: [N, H, W, C] with the C that the layer was built for; H and W of any size and dynamic if `mask_size`
            is given, else no larger than those that the layer was built for.
        training: whether batch normalization uses the batch's statistics.

    Returns:
        [N, H, W, 2C], or [N, H, W, C] with ``concat_input=False``, in the layer's compute dtype.

    Raises:
        ValueError: an argument out of its range, an even mask of the semseg variant, a compact layer with a dynamic
            size or a mask size that is not its shrunk size; at a call, an input that is not [N, H, W, C], or larger
            than the mask that the layer was built with for want of a `mask_size`.

    Example:
        >>> features = keras.Input([59, 59, 2048])
        >>> PSALayer(mid_channels=512)(features).shape
        (None, 59, 59, 4096)
    """

    def __init__(
        self,
        mid_channels: int = 512,
        psa_type: str = "bi-direction",
        compact: bool = False,
        shrink_factor: int = 2,
        mask_size: tuple[int, int] | None = None,
        normalization_factor: float | None = 1.0,
        psa_softmax: bool = True,
        concat_input: bool = True,
        synchronized_batch_norm: bool = False,
        implementation: str = "auto",
        variant: str = "semseg",
        align_corners: bool | None = None,
        block_size: BlockSize = "auto",
        **kwargs: Any,
    ) -> None:
        if "trainable" in kwargs:
            kwargs["trainable"] = checked_bool("trainable", kwargs["trainable"])
        super().__init__(**kwargs)
        if self.compute_dtype not in FLOAT_DTYPES:
            raise ValueError(f"dtype must compute in one of {', '.join(FLOAT_DTYPES)}, got {self.compute_dtype!r}")
        self.mid_channels = checked_integer("mid_channels", mid_channels)
        self.psa_type = checked_choice("psa_type", psa_type, PSA_TYPES)
        self.compact = checked_bool("compact", compact)
        self.shrink_factor = checked_integer("shrink_factor", shrink_factor)
        self.variant = checked_choice("variant", variant, VARIANTS)
        self.align_corners = checked_align_corners(align_corners, self.variant)
        self.mask_size = checked_mask_size(mask_size, self.compact, self.variant)
        self.normalization_factor = checked_normalization_factor(normalization_factor)
        self.psa_softmax = checked_bool("psa_softmax", psa_softmax)
        self.concat_input = checked_bool("concat_input", concat_input)
        self.synchronized_batch_norm = checked_bool("synchronized_batch_norm", synchronized_batch_norm)
        self.implementation = checked_choice("implementation", implementation, IMPLEMENTATIONS)
        if self.implementation == "custom":
            self.supports_jit = False  # Keras 3 asks for it before it compiles a model with XLA
        self.block_size = checked_block_size(block_size, self.compact)
        self.directions = DIRECTIONS if self.psa_type == "bi-direction" else (self.psa_type,)
        # One attribute per sublayer: both Kerases lose the weights of layers that are kept in lists or dicts.
        self.collect = self.distribute = None
        self.proj_conv = self.proj_bn = None
        self._flags_when_built = {}

    def build(self, input_shape: Sequence[int | None]) -> None:
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(f"PSALayer takes [N, H, W, C] with static C, got an input of shape {tuple(input_shape)}")
        in_channels = input_shape[-1]
        self._built_size = tuple(input_shape[1:3])
        self._built_mask_size = self._mask_size_for(self._shrunk(self._built_size)[0])
        if "collect" in self.directions:
            self.collect = self._branch("collect", input_shape)
        if "distribute" in self.directions:
            self.distribute = self._branch("distribute", input_shape)
        self.proj_conv = convolution(self, "proj_conv", self.mid_channels * len(self.directions), in_channels)
        self.proj_bn = normalization(self, "proj_bn", in_channels)
        set_sublayer_flags(self, self._flags_when_built)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: in_channels})
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        features = tf.convert_to_tensor(inputs)
        size = size_of(features)
        shrunk, align_corners = self._checked_shrunk(size)
        attended = []
        for branch in self._branches().values():
            # One after the other: at once, a graph would need the memory of both, and be no faster.
            with tf.control_dependencies(attended):
                attended.append(branch(features, size=shrunk, align_corners=align_corners, training=training))
        outputs = tf.concat(attended, axis=-1) if len(attended) > 1 else attended[0]
        if self.normalization_factor != 1.0:
            factor = self.normalization_factor
            outputs /= tf.cast(math.prod(self._built_mask_size) if factor is None else factor, outputs.dtype)
        if self.variant == "mmseg":
            outputs = tf.pad(outputs, [(0, 0), (1, 1), (1, 1), (0, 0)])
        outputs = self.proj_conv(outputs)
        outputs = tf.nn.relu(self.proj_bn(outputs, training=training))
        outputs = resize_bilinear(outputs, size, align_corners)
        outputs.set_shape(features.shape)
        return tf.concat([features, outputs], axis=-1) if self.concat_input else outputs

    def attention(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """The attention matrices in inference mode.

        Args:
            inputs: [N, H, W, C].

        Returns:
            ``{"collect": A, "distribute": A}`` with the directions the layer has, each A [N, h * w, h * w] with
            rows for the destinations and columns for the sources of the shrunk h x w map; with `psa_softmax`
            each row sums to 1.

        Raises:
            ValueError: the layer has no weights yet; an input that the layer was not built for.
        """
        if not self.built:
            raise ValueError(f"{self.name!r} has no weights yet: call it on an input, or build() it, first")
        features = tf.cast(tf.convert_to_tensor(inputs), self.compute_dtype)
        channels = self.input_spec.axes[-1]
        if features.shape.rank != 4 or features.shape[-1] != channels:
            raise ValueError(f"{self.name!r} was built for inputs [N, H, W, {channels}], got shape {features.shape}")
        shrunk, align_corners = self._checked_shrunk(size_of(features))
        return {
            direction: branch.attention(features, size=shrunk, align_corners=align_corners)
            for direction, branch in self._branches().items()
        }

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        if self.built:
            self._checked_shrunk(input_shape[1:3])
        channels = input_shape[-1] * (2 if self.concat_input else 1)
        return (*input_shape[:-1], channels)

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "mid_channels": self.mid_channels,
            "psa_type": self.psa_type,
            "compact": self.compact,
            "shrink_factor": self.shrink_factor,
            "mask_size": self.mask_size,
            "normalization_factor": self.normalization_factor,
            "psa_softmax": self.psa_softmax,
            "concat_input": self.concat_input,
            "synchronized_batch_norm": self.synchronized_batch_norm,
            "implementation": self.implementation,
            "variant": self.variant,
            "align_corners": self.align_corners,
            "block_size": self.block_size,
        }
        flags = sublayer_flags(self) if self.built else self._flags_when_built
        return config | ({"sublayers_trainable": dict(flags)} if flags else {})

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PSALayer":
        config = dict(config)
        flags = config.pop("sublayers_trainable", {})
        layer = super().from_config(config)
        layer._flags_when_built = dict(flags)
        return layer

    def shrunk_grid(self, size: Sequence[int | tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Where the attention works on features of `size`, integers or scalar integer tensors.

        Returns:
            (size, first, step), [2] each, for rows and columns: int32, the shrunk size; float64; float64. Row r of the
            shrunk map is the one of feature row ``first[0] + r * step[0]``.
        """
        shrunk, align_corners = self._shrunk(size)
        shrunk, size = tf.stack(shrunk), tf.stack(size)
        ratio = tf.cast(size, tf.float64) / tf.cast(shrunk, tf.float64)
        # A single row is the first of the features.
        aligned = tf.cast(tf.maximum(size - 1, 1), tf.float64) / tf.cast(tf.maximum(shrunk - 1, 1), tf.float64)
        first = tf.where(align_corners, tf.zeros_like(ratio), (ratio - 1) / 2)
        return shrunk, first, tf.where(align_corners, aligned, ratio)

    def sublayers(self) -> dict[str, keras.layers.Layer]:
        """{attribute: layer} of the sublayers of a built layer."""
        return {**self._branches(), "proj_conv": self.proj_conv, "proj_bn": self.proj_bn}

    def _branches(self):
        return {direction: getattr(self, direction) for direction in self.directions}

    def _branch(self, direction, input_shape):
        branch = PSABranch(
            direction,
            self.mid_channels,
            self._built_mask_size,
            compact=self.compact,
            psa_softmax=self.psa_softmax,
            synchronized_batch_norm=self.synchronized_batch_norm,
            implementation=self.implementation,
            block_size=self.block_size,
            dtype=self.dtype_policy,
            trainable=self.trainable,
            name=direction,
        )
        with tf.name_scope(direction):
            branch.build(input_shape)
        return branch

    def _shrunk(self, size):
        """(shrunk size, align_corners of the resize there and back) of a size of integers, tensors, and None.

        None stands for a length that is not known yet; what depends on it is None too.
        """
        if all(isinstance(length, int) for length in size):
            align_corners = all(length % 2 for length in size) if self.shrink_factor > 1 else self.align_corners
            shrunk = shrunk_size(size, self.shrink_factor, self.variant)
            return list(shrunk), self.variant == "semseg" or align_corners
        aligned = [None if length is None else (length - 1) // self.shrink_factor + 1 for length in size]
        if self.variant == "semseg":
            return aligned, True
        if self.shrink_factor == 1:
            return list(size), self.align_corners
        halved = [None if length is None else _at_least_one(length // self.shrink_factor) for length in size]
        odd = [None if length is None else length % 2 == 1 for length in size]
        if any(flag is False for flag in odd):
            return halved, False
        if None in odd:
            return [None, None], None
        odd = tf.reduce_all(tf.stack(odd))
        return [tf.where(odd, *lengths) for lengths in zip(aligned, halved, strict=True)], odd

    def _mask_size_for(self, shrunk):
        """(rows, columns) of the mask on a shrunk map of static size (None where dynamic)."""
        static = None not in shrunk
        if self.compact:
            if not static:
                raise ValueError("a compact PSALayer has one weight per position and needs static H and W")
            if self.mask_size not in (None, tuple(shrunk)):
                raise ValueError(
                    f"mask_size of a compact PSALayer must be the shrunk size {tuple(shrunk)}, got {self.mask_size}; "
                    "leave it out to get that"
                )
            return tuple(shrunk)
        if self.mask_size is not None:
            return self.mask_size
        if not static:
            raise ValueError("mask_size is needed where H and W are dynamic, for instance mask_size=(59, 59)")
        return tuple(2 * length - 1 for length in shrunk)

    def _checked_shrunk(self, size):
        """`_shrunk` of inputs of `size`, which the mask that the layer was built with must serve."""
        shrunk, align_corners = self._shrunk(size)
        static = [None if isinstance(length, tf.Tensor) else length for length in shrunk]
        if self.compact:
            if tuple(static) != self._built_mask_size:
                got = "a dynamic size" if None in static else tuple(static)
                raise ValueError(
                    f"a compact PSALayer works at the size it was built for, {self._built_mask_size} after shrinking, "
                    f"got {got}; use compact=False for other sizes"
                )
        elif self.mask_size is None:
            self._check_reach(size, shrunk, static)
        return shrunk, align_corners

    def _check_reach(self, size, shrunk, static):
        rows, columns = self._built_mask_size
        message = (
            f"PSALayer {self.name!r} was built for inputs of {' x '.join(map(str, self._built_size))}; its mask of "
            f"{rows} x {columns} offsets does not reach all of a larger input{{}}. Build it for the largest size, or "
            f"give mask_size, for instance mask_size=({rows}, {columns}): then it takes any size, and offsets beyond "
            "the mask get a weight of 0 before the softmax"
        )
        limits = [(length + 1) // 2 for length in self._built_mask_size]
        if any(length is not None and length > limit for length, limit in zip(static, limits, strict=True)):
            raise ValueError(message.format(f", {size[0]} x {size[1]}"))
        for length, limit in zip(shrunk, limits, strict=True):
            if isinstance(length, tf.Tensor):
                tf.debugging.assert_less_equal(length, limit, message.format(""))


def _at_least_one(length):
    return tf.maximum(length, 1) if isinstance(length, tf.Tensor) else max(length, 1)
