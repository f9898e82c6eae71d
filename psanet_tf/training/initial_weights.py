"""Where a run's weights come from, other than from random numbers."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from psanet_tf.models.resnet import BLOCKS
from psanet_tf.models.semseg_weights import from_torch_layout, read_state_dict, semseg_state_dict, semseg_variables
from psanet_tf.training.checkpoints import load_trained
from psanet_tf.training.resnet_weights import from_torch_resnet, read_keras_applications

_PARTS = {"psa": "attention module", "cls": "main head", "aux": "auxiliary head"}
_CLASSIFIERS = ("cls.4", "aux.4")
_WANTED = (
    "wanted is a run folder or .keras file of psanet train, a .pth of the original implementation or of a torchvision "
    "ResNet, or an .h5 of a keras.applications ResNet"
)


def load_initial_weights(model, source):
    """Sets as many weights as a file has for this network; the whole backbone at least.

    Args:
        model: PSANet.
        source: run folder or `.keras` file of an earlier run; ``.pth`` of the original implementation, whole
            network or backbone, or of a torchvision ResNet; ``.h5`` of a keras.applications ResNet.

    Returns:
        Lines of text: what was taken, and what was not and why.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such weights, or a backbone of another shape; nothing has been changed then.
        ImportError: torch is needed to read the file and not installed.
    """
    state = _read(Path(source), model)
    variables = semseg_variables(model)
    _check_backbone(state, variables, source, model)
    taken, skipped = {}, {}
    for name, variable in variables.items():
        if name not in state:
            skipped.setdefault(_part(name), "not in the file")
            continue
        value = from_torch_layout(state[name])
        if value.shape == tuple(variable.shape):
            taken[name] = (variable, value)
        elif name.startswith(_CLASSIFIERS):
            classes = f"{np.shape(state[name])[0]} classes there, {model.num_classes} here"
            skipped[f"classifier of the {_PARTS[_part(name)]}"] = classes
        else:
            skipped[name] = f"shape {list(value.shape)} there, {list(variable.shape)} here"
    for variable, value in taken.values():
        variable.assign(value)
    lines = [f"initial weights from {source}: {len(taken)} of {len(variables)} tensors taken"]
    lines += [
        f"skipped {_PARTS.get(what, what)}: {why}; it starts from random weights" for what, why in skipped.items()
    ]
    return lines


def _read(path, model):
    if path.is_dir() or path.suffix == ".keras":
        try:
            return semseg_state_dict(load_trained(path).model)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"train.init: {error}; {_WANTED}") from None
    if not path.is_file():
        raise FileNotFoundError(f"train.init: there is no file or run folder {path}; {_WANTED}")
    kind = _kind_of(path)
    if kind == "HDF5":
        arguments = model.get_config()
        if arguments["stem"] != "classic" or not arguments["stride_in_1x1"]:
            raise ValueError(
                f"train.init: weights of keras.applications ({path}) need model.stem: classic and "
                "model.stride_in_1x1: true"
            )
        return read_keras_applications(path, arguments["blocks"] or BLOCKS[arguments["depth"]])
    if kind != "PyTorch":
        raise ValueError(f"train.init: {path} holds no weights but {kind}; {_WANTED}")
    state = read_state_dict(path)
    return state if any(name.startswith("layer0.") for name in state) else from_torch_resnet(state)


def _kind_of(path):
    """ "HDF5", "PyTorch", or in words what a file is that holds no weights; by its content, whatever its name."""
    with open(path, "rb") as file:
        start = file.read(4096)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "HDF5"
    # An archive with a pickle inside, or, before PyTorch 1.6, pickles one after the other.
    if start[:1] == b"\x80" and not zipfile.is_zipfile(path):
        return "PyTorch"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return "PyTorch"
        return f"a zip archive of {names[0]} and others" if names else "an empty zip archive"
    if start.startswith(b"PK"):
        return "a zip archive that is cut short"
    if not start:
        return "nothing: it is empty"
    try:
        with Image.open(path) as picture:
            return f"a picture ({picture.format})"
    except (OSError, ValueError, SyntaxError):
        pass
    text = start.decode("utf-8", "ignore")
    return "text" if all(character.isprintable() or character.isspace() for character in text) else "other data"


def _check_backbone(state, variables, source, model):
    expected = {name: tuple(variable.shape) for name, variable in variables.items() if _part(name).startswith("layer")}
    found = {
        name: np.shape(from_torch_layout(value))
        for name, value in state.items()
        if _part(name).startswith("layer") and not name.endswith("num_batches_tracked")
    }
    problems = [f"missing: {name}" for name in expected if name not in found]
    problems += [f"unexpected: {name}" for name in found if name not in expected]
    problems += [
        f"{name}: shape {list(found[name])} there, {list(shape)} here"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ValueError(
            f"train.init: the backbone in {source} is not this network's (model.depth or blocks, width, stem?):\n  "
            + "\n  ".join(problems[:10])
            + more
        )


def _part(name):
    return name.partition(".")[0]
