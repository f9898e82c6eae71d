"""A backbone's strides made into dilations by rewriting its graph; weights are shared, not copied."""

import dataclasses
import inspect
from typing import Any, NoReturn

from psanet_tf.keras_api import keras
from psanet_tf.layers import Conv2D
from psanet_tf.layers.dilated_pooling import DilatedAveragePooling2D, DilatedMaxPooling2D
from psanet_tf.models.pointwise import is_global_pooling, is_kerass, is_pointwise
from psanet_tf.models.shared_layers import shares_weights, with_weights_of

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")
_POOLING = {"MaxPooling2D": DilatedMaxPooling2D, "AveragePooling2D": DilatedAveragePooling2D}
_BORDERS = {"ZeroPadding2D": ("padding", -1), "Cropping2D": ("cropping", 1)}


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where the features of a map lie in the image.

    Attributes:
        stride: pixels from one row or column to the next.
        dilation: how many times as fine as in the backbone it is.
        offset: (row, column) of the pixel in whose middle the first feature looks.
    """

    stride: int = 1
    dilation: int = 1
    offset: tuple[float, float] = (0.0, 0.0)

    @property
    def own_stride(self) -> int:
        """The stride in the backbone as it was."""
        return self.stride * self.dilation


@dataclasses.dataclass(frozen=True)
class Feature:
    """What one layer of a rewritten backbone gives.

    Attributes:
        name: the layer's in the backbone as it was.
        tensor: KerasTensor [N, h, w, C].
        grid: Grid.
        is_border: whether the layer does nothing but add or cut off a border.
    """

    name: str
    tensor: "keras.KerasTensor"
    grid: Grid
    is_border: bool


def dilated_features(
    backbone: keras.Model, images: "keras.KerasTensor", output_stride: int, synchronized: bool = False
) -> list[Feature]:
    """Applies a backbone to images, with the strides that would lead beyond `output_stride` made into dilations.

    Where a stride s is taken away, the map is s times as fine; every later convolution, pooling and border is spread
    by as much, so that each position sees what it would have seen. Sampled at every s-th position the rewritten
    backbone gives the backbone's own values, borders included, but for two things: "same" padding of a strided layer
    is taken as for an odd size (TensorFlow's moves with the parity of the size; for images of 32n + 1 pixels it is the
    same), and a global pooling, as in squeeze-and-excitation, is over all positions.

    Args:
        backbone: functional or sequential model of one input; it may have such models in it. It stays as it is.
        images: [N, H, W, C], a `keras.Input`.
        output_stride: largest stride of the features.
        synchronized: batch normalization takes its statistics over all replicas.

    Returns:
        The features of all layers that keep rows and columns, in the order of the computation; the layers with weights
        are new ones that hold the backbone's variables.

    Raises:
        ValueError: a layer that cannot be rewritten; the message names it and says what to do.
    """
    rewriting = _Rewriting(images, output_stride, synchronized)
    rewriting(backbone, images)
    return rewriting.features


class _Rewriting:
    """Goes through a backbone once; called in place of each of its operations."""

    def __init__(self, images, output_stride, synchronized):
        self.features = []
        self._size = images.shape[1:3]
        self._output_stride = output_stride
        self._synchronized = synchronized
        self._grids = {id(images): Grid()}
        self._renewed = {}  # id -> (the layer, the one in its place, what is changed)
        self._names = set()
        self._tensors = [images]  # held: an id is one as long as there is the object
        self._training = [None]

    def __call__(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, keras.Model) and (layers := _sequence(operation, args)):
            return self._inside(operation, layers, *args, **kwargs)
        tensors = [value for value in keras.tree.flatten((args, kwargs)) if keras.utils.is_keras_tensor(value)]
        grids = [grid for tensor in tensors if (grid := self._grids.get(id(tensor))) is not None]
        if len({(grid.stride, grid.dilation) for grid in grids}) > 1:
            strides = ", ".join(str(grid.own_stride) for grid in grids)
            self._refuse(operation, f"puts maps of different strides together ({strides})")
        before, changes, grid = self._plan(operation, grids[0] if grids else None, tensors)
        new = self._in_place_of(operation, changes)
        if before is not None:
            args = (before(args[0]), *args[1:])
        if self._training[-1] is not None and "training" in inspect.signature(operation.call).parameters:
            kwargs.setdefault("training", self._training[-1])
        outputs = self._applied(operation, new, args, kwargs)
        for tensor in keras.tree.flatten(outputs):
            self._note(operation, tensor, grid, bool(grids))
        return outputs

    def _inside(self, model, layers, *args, **kwargs):
        """A model in the backbone, layer by layer."""
        self._training.append(kwargs.get("training", self._training[-1]))
        if isinstance(layers, list):
            (outputs,) = args
            for layer in layers:
                outputs = self(layer, outputs)
        else:
            outputs = model._run_through_graph(args[0], operation_fn=lambda inner: inner, call_fn=self)
            outputs = outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else outputs
        self._training.pop()
        return outputs

    def _applied(self, operation, new, args, kwargs):
        try:
            return new(*args, **kwargs)
        except ValueError as error:
            raise ValueError(
                f"backbone: its layer {operation.name!r} ({type(operation).__name__}) does not take what comes to it "
                f"with input_shape {(*self._size, self._tensors[0].shape[-1])} and output_stride="
                f"{self._output_stride}: {error}"
            ) from error

    def _note(self, operation, tensor, grid, from_grid):
        self._tensors.append(tensor)
        sizes = (*self._size, *tensor.shape[1:3])
        if len(tensor.shape) != 4:
            grid = None
        elif grid is None and not from_grid and None not in sizes and sizes[2:] != (1, 1):
            # Maps that were tokens on the way.
            stride = round(self._size[0] / tensor.shape[1])
            if stride > self._output_stride:
                self._refuse(operation, f"makes maps of stride {stride}", own_stride=stride)
            grid = Grid(stride, 1, ((stride - 1) / 2,) * 2)
        self._grids[id(tensor)] = grid
        if grid is not None:
            self.features.append(Feature(operation.name, tensor, grid, type(operation).__name__ in _BORDERS))

    def _plan(self, operation, grid, tensors):
        """(layer to go before, changed arguments or a layer to take its place, grid of the output)."""
        if grid is None:
            return None, {}, None
        if getattr(operation, "data_format", None) == "channels_first":
            self._refuse(operation, "has data_format='channels_first': build the backbone with channels last", None)
        for name in (*_CONVOLUTIONS, *_POOLING):
            if isinstance(operation, getattr(keras.layers, name)):
                return self._planned_window(operation, grid, name)
        if (name := type(operation).__name__) in _BORDERS and is_kerass(operation):
            argument, sign = _BORDERS[name]
            (top, bottom), (left, right) = _pairs(getattr(operation, argument))
            spread = tuple(tuple(grid.dilation * length for length in pair) for pair in ((top, bottom), (left, right)))
            moved = [at + sign * grid.own_stride * first for at, first in zip(grid.offset, (top, left), strict=True)]
            changes = {argument: spread} if grid.dilation > 1 else {}
            return None, changes, dataclasses.replace(grid, offset=tuple(moved))
        if is_pointwise(operation):
            return None, {}, grid
        if is_global_pooling(operation):
            return None, {}, None
        if hasattr(operation, "dilated"):
            return None, operation.dilated(grid.dilation) if grid.dilation > 1 else {}, grid
        if grid.dilation > 1:
            self._refuse(operation, "comes after a stride that would become a dilation, and cannot be dilated")
        return None, {}, self._grid_behind(operation, grid, tensors)

    def _planned_window(self, layer, grid, name):
        """For convolutions and poolings."""
        is_pooling = name in _POOLING
        kernel = tuple(layer.pool_size if is_pooling else layer.kernel_size)
        strides, rates = tuple(layer.strides), (1, 1) if is_pooling else tuple(layer.dilation_rate)
        if strides[0] != strides[1]:
            self._refuse(layer, f"has different strides for rows and columns, {strides}", None)
        stride = strides[0]
        kept = next(
            part for part in range(stride, 0, -1) if not stride % part and part * grid.stride <= self._output_stride
        )
        if grid.dilation > 1:
            kept = 1
        spread = tuple(grid.dilation * rate for rate in rates)
        reach = [(size - 1) * rate for size, rate in zip(kernel, spread, strict=True)]
        # As for an odd size: all of the padding that the window asks for, the smaller half of it first.
        first = [(size - 1) * rate // 2 * grid.dilation for size, rate in zip(kernel, rates, strict=True)]
        start = first if layer.padding == "same" else (0, 0)
        moved = [at + grid.stride * (far / 2 - of) for at, far, of in zip(grid.offset, reach, start, strict=True)]
        behind = Grid(grid.stride * kept, grid.dilation * (stride // kept), tuple(moved))
        if kept == stride and grid.dilation == 1:
            return None, {}, behind
        if is_pooling and grid.dilation > 1:
            return None, _POOLING[name](kernel, grid.dilation, layer.padding, **_common(layer)), behind
        changes = {"strides": kept} if is_pooling else {"strides": kept, "dilation_rate": spread}
        if layer.padding == "same" and [far // 2 for far in reach] != first:
            border = tuple((of, far - of) for of, far in zip(first, reach, strict=True))
            common = _common(layer) | {"name": f"{layer.name}_border"}
            padding = keras.layers.ZeroPadding2D(border, data_format="channels_last", **common)
            return padding, changes | {"padding": "valid"}, behind
        return None, changes, behind

    def _grid_behind(self, operation, grid, tensors):
        """The grid of what an unknown layer gives, by the sizes of the maps before and behind it."""
        sizes = []
        stand_ins = [
            keras.KerasTensor([1 if index == 0 else length or 256 for index, length in enumerate(shape)], tensor.dtype)
            for tensor in tensors
            for shape in [tensor.shape]
        ]
        try:
            outputs = keras.tree.flatten(operation.compute_output_spec(*stand_ins))
            sizes = [shape[1] for output in outputs if len(shape := output.shape) == 4]
        except Exception:  # a layer of somebody else's, which may raise anything
            return None
        if not sizes or sizes[0] == 1:
            return None
        stride = round(grid.stride * stand_ins[0].shape[1] / sizes[0])
        if stride > self._output_stride:
            self._refuse(operation, f"goes from stride {grid.stride} to {stride} by itself", own_stride=stride)
        moved = tuple(at + (stride - grid.stride) / 2 for at in grid.offset)
        return Grid(max(stride, 1), 1, moved)

    def _in_place_of(self, operation, changes):
        """The layer that does an operation's part in the rewritten backbone; a call of one layer twice stays one."""
        if not isinstance(operation, keras.layers.Layer):
            return operation
        if id(operation) in self._renewed:
            _, new, changed = self._renewed[id(operation)]
            same = changes == changed or isinstance(changes, keras.layers.Layer)
            if not same:
                self._refuse(operation, "is called on maps of different strides")
            return new
        if isinstance(changes, keras.layers.Layer):
            new = changes
        elif not changes and not shares_weights(operation):
            new = operation
        else:
            new = self._renewed_layer(operation, changes)
        self._renewed[id(operation)] = (operation, new, changes)
        self._names.add(new.name)
        return new

    def _renewed_layer(self, layer, changes):
        if self._synchronized and isinstance(layer, keras.layers.BatchNormalization):
            changes = changes | {"synchronized": True}
        if layer.name in self._names:
            changes = changes | {
                "name": next(n for i in range(1, 10**6) if (n := f"{layer.name}_{i}") not in self._names)
            }
        kind = Conv2D if type(layer) is keras.layers.Conv2D else type(layer)
        return with_weights_of(layer, kind, changes)

    def _refuse(self, operation, why, own_stride: int | str | None = "") -> NoReturn:
        advice = {
            "": "a larger output_stride, up to the backbone's own, leaves it as it is; or build that part of Keras's "
            "convolutions and poolings; or give the layer's class a method dilated(rate), which returns a layer that "
            "does the same on maps `rate` times as fine (itself, if it looks at one position at a time)",
            None: "",
        }.get(own_stride, f"it works with output_stride={own_stride}, its own")
        raise ValueError(
            f"backbone: its layer {operation.name!r} ({type(operation).__name__}) {why}"
            f"{'; ' + advice if advice else ''} (output_stride is {self._output_stride})"
        )


def _sequence(model, args):
    """The layers of a sequential model, True for a functional one, None for a model that only its code describes."""
    if isinstance(model, keras.Sequential):
        return list(model.layers)
    return True if hasattr(model, "operations") and len(args) == 1 else None


def _pairs(border):
    return tuple((one, one) if isinstance(one, int) else tuple(one) for one in border)


def _common(layer):
    return {"name": layer.name, "dtype": layer.dtype_policy}
