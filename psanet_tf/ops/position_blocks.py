"""Blocks of the positions of a feature map: slices of tensors, and logits of a block towards the whole map."""

from collections.abc import Callable, Sequence

import tensorflow as tf

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
        self._kernel_columns = kernel.shape[2] or tf.shape(kernel)[2]

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
        u, v = self._reach
        x = tf.reshape(x, tf.stack([blocks.n * blocks.columns, blocks.rows, u * v]))
        x = _offsets_to_positions(x, blocks.rows, v)[:, :, : blocks.height * v]
        length = blocks.rows * blocks.height * v
        x = tf.reshape(x, tf.stack([blocks.n, blocks.columns, length]))
        x = tf.pad(_offsets_to_positions(x, blocks.columns, 1), [(0, 0), (0, 0), (0, _step(blocks.columns, 1))])
        x = tf.reshape(x, tf.stack([blocks.n, blocks.block_count * blocks.height, v]))[:, :, : blocks.width]
        return tf.reshape(x, tf.stack([blocks.n, blocks.block_count, blocks.count]))

    def gradients_of_logits(self, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The transpose of `logits`.

        Args:
            upstream: [N, B, H * W].

        Returns:
            [N, B, P] for the block's predictors, and [U * V, P] for the transposed `kernel`.
        """
        blocks = self._blocks
        u, v = self._reach
        x = tf.reshape(upstream, tf.stack([blocks.n, blocks.block_count * blocks.height, blocks.width]))
        x = tf.pad(x, [(0, 0), (0, 0), (0, blocks.columns - 1)])
        x = tf.reshape(x, tf.stack([blocks.n, blocks.columns, blocks.rows * blocks.height * v]))
        step = _step(blocks.columns, 1)
        x = _positions_to_offsets(x[:, :, : blocks.rows * blocks.height * v - step], blocks.columns, 1)
        x = tf.reshape(x, tf.stack([blocks.n * blocks.columns, blocks.rows, blocks.height * v]))
        missing = (u - blocks.height) * v - _step(blocks.rows, v)
        x = _positions_to_offsets(tf.pad(x, [(0, 0), (0, 0), (0, missing)]), blocks.rows, v)
        x = tf.reshape(x, tf.stack([blocks.n * blocks.block_count, u * v]))
        channels = self.predictors.shape[2]
        for_predictors = tf.matmul(x, self.kernel, transpose_b=True)
        rows = tf.reshape(self.predictors, tf.stack([blocks.n * blocks.block_count, channels]))
        for_kernel = tf.matmul(x, rows, transpose_a=True)
        return tf.reshape(for_predictors, tf.stack([blocks.n, blocks.block_count, channels])), for_kernel

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
        """[kernel rows * kernel columns, P] with `values` [U * V, P] added at the block's offsets."""
        rows, columns = (tf.range(length) + begin for length, begin in zip(self._reach, self._offsets, strict=True))
        indices = tf.reshape(rows[:, None] * self._kernel_columns + columns, [-1, 1])
        return tf.tensor_scatter_nd_add(tensor, indices, tf.cast(values, tensor.dtype))

    def _indices(self):
        blocks = self._blocks
        columns = self._column + tf.range(blocks.columns)
        rows = self._row + tf.range(blocks.rows)
        positions = tf.reshape(columns[:, None] + rows * blocks.width, [-1])
        return tf.reshape(tf.range(blocks.n)[:, None] * blocks.count + positions, [-1, 1])

    def _rows_of(self, values, tensor):
        count = self._blocks.n * self._blocks.block_count
        return tf.reshape(tf.cast(values, tensor.dtype), tf.stack([count, values.shape[2]]))


def at_most(length: Length, limit: int) -> Length:
    return tf.minimum(length, limit) if isinstance(length, tf.Tensor) else min(length, limit)


def _offsets_to_positions(x, rows, unit):
    """[A, rows, S] -> [A, rows, S - unit]: row i moves to the left by rows - 1 - i units; its end is of no use.

    Row i then begins at i * S + (rows - 1 - i) * unit = (rows - 1) * unit + i * (S - unit): behind the first rows - 1
    units, a matter of another row length.
    """
    step = _step(rows, unit)
    length = _length(x, 2)
    flat = tf.reshape(x, tf.stack([_length(x, 0), rows * length]))
    begin = (rows - 1) * unit
    flat = flat[:, begin : begin + rows * (length - step)]
    return tf.reshape(flat, tf.stack([_length(x, 0), rows, length - step]))


def _positions_to_offsets(x, rows, unit):
    """The transpose: [A, rows, S - unit] -> [A, rows, S], zeros in the places of what was of no use."""
    step = _step(rows, unit)
    flat = tf.reshape(x, tf.stack([_length(x, 0), rows * _length(x, 2)]))
    flat = tf.pad(flat, [(0, 0), ((rows - 1) * unit, step)])
    return tf.reshape(flat, tf.stack([_length(x, 0), rows, _length(x, 2) + step]))


def _step(rows, unit):
    """Nothing moves in a single row."""
    return unit * at_most(rows - 1, 1)


def _length(x, axis):
    return tf.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]
