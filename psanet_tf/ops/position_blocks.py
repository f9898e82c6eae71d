"""Blocks of the positions of a feature map: slices of tensors, and logits of a block towards the whole map."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from psanet_tf.ops.compiling import traced_for_xla

Length = int | tf.Tensor


class PositionBlocks:
    """The blocks that cover a map; the last ones of a column or a row begin earlier where they would not fit.

    Args:
        shape: [N, H, W] of the map, integers or scalar integer tensors.
        block_size: rows and columns of a block, positive; no more than those of the map are used.
    """

    def __init__(self, shape: Sequence[Length], block_size: tuple[int, int]) -> None:
        self.n, self.height, self.width = shape
        self.count = self.height * self.width
        self.rows, self.columns = (at_most(*lengths) for lengths in zip(shape[1:], block_size, strict=True))
        self.block_count = self.rows * self.columns  # positions of a block
        self._down = -(-self.height // self.rows)
        self._across = -(-self.width // self.columns)

    def loop(
        self,
        body: Callable[..., list[tf.Tensor]],
        state: list[tf.Tensor],
        predictors: tf.Tensor,
        kernel: tf.Tensor,
        *constants: tf.Tensor,
    ) -> list[tf.Tensor]:
        """The state after `body(block, *state, *constants)`, which returns the next state, for every `Block`."""

        def step(index, *state):
            following = body(Block(self, *self._place(index), predictors, kernel), *state, *constants)
            for after, before in zip(following, state, strict=True):
                after.set_shape(before.shape)
            return [index + 1, *following]

        total = self._down * self._across
        # One block at a time: several would each need the memory of one.
        return tf.while_loop(lambda index, *_: index < total, step, [tf.constant(0), *state], parallel_iterations=1)[1:]

    def _place(self, index):
        """(first row, first column) of a block, and (rows, columns) of it that an earlier block has had."""
        row, column = index // self._across * self.rows, index % self._across * self.columns
        first_row = tf.minimum(row, self.height - self.rows)
        first_column = tf.minimum(column, self.width - self.columns)
        return (first_row, first_column), (row - first_row, column - first_column)

    def overlap(self) -> bool:
        """Whether blocks may overlap."""
        lengths = (self.height, self.rows), (self.width, self.columns)
        return any(isinstance(a, tf.Tensor) or isinstance(b, tf.Tensor) or a % b for a, b in lengths)


class Block:
    """One block: B positions, column by column; everything of theirs is [N, B, ...] in that order.

    Args:
        blocks: what the block is one of.
        begin: its first row and column.
        old: how many of its rows and columns an earlier block has had.
        predictors: [N, H, W, P] of the map.
        kernel: [P, 2 * H - 1, 2 * W - 1].

    Attributes:
        predictors: [N, B, P], of the block's positions.
        kernel: [P, U * V], the entries for the offsets between the block and the map.
    """

    def __init__(
        self,
        blocks: PositionBlocks,
        begin: Sequence[tf.Tensor],
        old: Sequence[tf.Tensor],
        predictors: tf.Tensor,
        kernel: tf.Tensor,
    ) -> None:
        row, column = begin
        self._blocks, self._row, self._column = blocks, row, column
        self._old_rows, self._old_columns = old
        self.predictors = self.of_map(predictors)
        # Offsets are counted from -(H - 1), -(W - 1); the block's lowest is the one from its last position to the
        # map's first one.
        self._offsets = (blocks.height - row - blocks.rows, blocks.width - column - blocks.columns)
        self._reach = (blocks.height + blocks.rows - 1, blocks.width + blocks.columns - 1)
        part = tf.slice(kernel, tf.stack([0, *self._offsets]), tf.stack([kernel.shape[0], *self._reach]))
        self.kernel = tf.reshape(part, tf.stack([kernel.shape[0], self._reach[0] * self._reach[1]]))
        # Of the logits before the last cut: what the skew leaves of the offsets' rows.
        kept_rows = self._reach[0] - _moves(blocks.rows)
        self._skewed_shape = (blocks.n * blocks.block_count, kept_rows, self._reach[1])

    def of_map(self, tensor: tf.Tensor) -> tf.Tensor:
        """[N, H, W, D] -> [N, B, D]."""
        blocks = self._blocks
        depth = tensor.shape[3]
        part = tf.slice(
            tensor,
            tf.stack([0, self._row, self._column, 0]),
            tf.stack([blocks.n, blocks.rows, blocks.columns, depth]),
        )
        return tf.reshape(tf.transpose(part, [0, 2, 1, 3]), tf.stack([blocks.n, blocks.block_count, depth]))

    def logits(self) -> tf.Tensor:
        """What the block's positions predict for every position: [N, B, H * W]."""
        blocks = self._blocks
        rows = tf.reshape(self.predictors, tf.stack([blocks.n * blocks.block_count, self.predictors.shape[2]]))
        x = tf.matmul(rows, self.kernel)
        for skew in self._skews():
            x = skew.apply(x)
        x = tf.reshape(x, tf.stack(self._skewed_shape))
        x = tf.slice(x, [0, 0, 0], tf.stack([blocks.n * blocks.block_count, blocks.height, blocks.width]))
        return tf.reshape(x, tf.stack([blocks.n, blocks.block_count, blocks.count]))

    def gradients_of_logits(self, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The transpose of `logits`.

        Args:
            upstream: [N, B, H * W].

        Returns:
            [N, B, P] for the block's predictors, and [U * V, P] for the transposed `kernel`.
        """
        blocks = self._blocks
        _, kept_rows, v = self._skewed_shape
        x = tf.reshape(upstream, tf.stack([blocks.n * blocks.block_count, blocks.height, blocks.width]))
        x = tf.pad(x, [(0, 0), (0, kept_rows - blocks.height), (0, v - blocks.width)])
        for skew in reversed(self._skews()):
            x = skew.transpose(x)
        x = tf.reshape(x, tf.stack([blocks.n * blocks.block_count, self._reach[0] * v]))
        channels = self.predictors.shape[2]
        # The longer of the two on the left, by which TensorFlow multiplies a third faster on a CPU.
        for_predictors = tf.transpose(tf.matmul(self.kernel, x, transpose_b=True))
        rows = tf.reshape(self.predictors, tf.stack([blocks.n * blocks.block_count, channels]))
        for_kernel = tf.matmul(x, rows, transpose_a=True)
        return tf.reshape(for_predictors, tf.stack([blocks.n, blocks.block_count, channels])), for_kernel

    def _skews(self):
        """What turns offsets into positions: over the block's rows, then over its columns.

        The second takes an entry of every row away; the first leaves one, so that rows of the map stay whole.
        """
        blocks = self._blocks
        (u, v), (_, kept_rows, _) = self._reach, self._skewed_shape
        spare = _moves(blocks.columns)
        over_rows = _Skew(blocks.n * blocks.columns, blocks.rows, u * v, unit=v, spare=spare)
        over_columns = _Skew(blocks.n, blocks.columns, blocks.rows * kept_rows * v + spare, unit=1, spare=0)
        return over_rows, over_columns

    def without_old(self, tensor: tf.Tensor) -> tf.Tensor:
        """[N, B, D] with zeros for positions that an earlier block has had."""
        if not self._blocks.overlap():
            return tensor
        new_columns = tf.range(self._blocks.columns)[:, None] >= self._old_columns
        new = tf.logical_and(new_columns, tf.range(self._blocks.rows)[None] >= self._old_rows)
        return tensor * tf.cast(tf.reshape(new, [1, -1, 1]), tensor.dtype)

    def write(self, tensor: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """[N * H * W, D] with `values` [N, B, D] in the block's positions."""
        return tf.tensor_scatter_nd_update(tensor, self._indices(), self._rows_of(values, tensor))

    def add(self, tensor: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """[N * H * W, D] with `values` [N, B, D] added in the block's positions."""
        return tf.tensor_scatter_nd_add(tensor, self._indices(), self._rows_of(values, tensor))

    def add_to_kernel(self, tensor: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """[kernel rows, kernel columns, P] with `values` [U * V, P] added at the block's offsets."""
        begin, size = tf.stack([*self._offsets, 0]), tf.stack([*self._reach, tensor.shape[2]])
        values = tf.reshape(tf.cast(values, tensor.dtype), size)
        if not traced_for_xla():
            # In place and by whole rows, where a scatter would go from one offset to the next.
            values += tf.slice(tensor, begin, size)
            return tf.raw_ops.TensorStridedSliceUpdate(
                input=tensor, begin=begin, end=begin + size, strides=[1, 1, 1], value=values
            )
        # XLA wants to know when it compiles which part of a tensor that op sets.
        grid = tf.meshgrid(*(tf.range(length) for length in self._reach), indexing="ij")
        return tf.tensor_scatter_nd_add(tensor, tf.stack(grid, axis=-1) + begin[:2], values)

    def _indices(self):
        blocks = self._blocks
        columns = self._column + tf.range(blocks.columns)
        rows = self._row + tf.range(blocks.rows)
        positions = tf.reshape(columns[:, None] + rows * blocks.width, [-1])
        return tf.reshape(tf.range(blocks.n)[:, None] * blocks.count + positions, [-1, 1])

    def _rows_of(self, values, tensor):
        count = self._blocks.n * self._blocks.block_count
        return tf.reshape(tf.cast(values, tensor.dtype), tf.stack([count, values.shape[2]]))


class _Skew:
    """[count, rows * length] -> [count, rows * (length - step) + spare]: row i moves to the left by rows - 1 - i units.

    Row i then begins at i * length + (rows - 1 - i) * unit = (rows - 1) * unit + i * (length - unit): behind the first
    rows - 1 units, a matter of another row length. What then stands at the ends of the rows is of no use. A single row
    does not move. `spare` entries behind the last row, no more than a unit, are kept.
    """

    def __init__(self, count: Length, rows: Length, length: Length, unit: Length, spare: Length) -> None:
        self._begin = (rows - 1) * unit
        self._shape = tf.stack([count, rows * length])
        size = rows * (length - _moves(rows) * unit) + spare
        self._skewed_shape = tf.stack([count, size])
        self._short = (1 - _moves(rows)) * spare  # a single row has nothing behind it
        self._behind = rows * length + self._short - self._begin - size

    def apply(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.reshape(x, self._shape)
        if isinstance(self._short, tf.Tensor) or self._short:
            x = tf.pad(x, [(0, 0), (0, self._short)])
        return tf.slice(x, [0, self._begin], self._skewed_shape)

    def transpose(self, x: tf.Tensor) -> tf.Tensor:
        """From the skewed to the given shape, zeros in the places of what was of no use."""
        x = tf.pad(tf.reshape(x, self._skewed_shape), [(0, 0), (self._begin, self._behind)])
        if isinstance(self._short, tf.Tensor) or self._short:
            x = tf.slice(x, [0, 0], self._shape)
        return x


def at_most(length: Length, limit: int) -> Length:
    return tf.minimum(length, limit) if isinstance(length, tf.Tensor) else min(length, limit)


def _moves(rows):
    """1, or 0 for a single row."""
    return at_most(rows - 1, 1)
