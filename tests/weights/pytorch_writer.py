"""Writes files as PyTorch does, and others that it never would, opcode by opcode and without PyTorch."""

import io
import pickle
import zipfile

import numpy as np

_KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


class Call:
    """Pickles as a call of a name, which need not exist here."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments


class Storage:
    def __init__(self, key, length, kind="FloatStorage"):
        self.key, self.length, self.kind = key, length, kind


class Writer(pickle._Pickler):
    """Writes the pickles that PyTorch writes, and others that it does not; in Python, so that opcodes can be added."""

    def __init__(self, file):
        super().__init__(file, protocol=2)

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Storage):
            self.save_name("torch", obj.kind)
            kind = self._take()
            self.write(pickle.MARK)
            super().save("storage")
            self.write(kind)
            for item in (obj.key, "cpu", obj.length):
                super().save(item)
            self.write(pickle.TUPLE + pickle.BINPERSID)
        elif isinstance(obj, Call):
            self.save_name(obj.module, obj.name)
            self.write(self._take())
            self.save(tuple(obj.arguments))
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)

    def save_name(self, module, name):
        self.name = pickle.GLOBAL + f"{module}\n{name}\n".encode()

    def _take(self):
        return self.name


def tensor(key, length, size, stride, offset=0, kind="FloatStorage"):
    return Call("torch._utils", "_rebuild_tensor_v2", Storage(key, length, kind), offset, size, stride, False, {})


def write(path, tree, storages, compression=zipfile.ZIP_STORED, **extra):
    table = io.BytesIO()
    Writer(table).dump(tree)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", table.getvalue())
        for name, content in extra.items():
            archive.writestr(f"archive/{name.replace('_pkl', '.pkl')}", content)
        for key, numbers in storages.items():
            archive.writestr(f"archive/data/{key}", np.asarray(numbers).tobytes(), compression)
    return path


def save_state_dict(path, state, **around):
    """The file that ``torch.save({"state_dict": state, **around}, path)`` writes; without `around` the state alone."""
    state = {name: np.ascontiguousarray(value) for name, value in state.items()}
    tensors = {
        name: tensor(
            str(index),
            value.size,
            value.shape,
            tuple(stride // value.itemsize for stride in value.strides),
            kind=_KINDS[value.dtype.name],
        )
        for index, (name, value) in enumerate(state.items())
    }
    tree = {**around, "state_dict": tensors} if around else tensors
    return write(path, tree, {str(index): value for index, value in enumerate(state.values())})
