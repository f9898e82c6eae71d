"""This package against the original PyTorch implementation: op, attention module, network, training step; memory.

    git clone https://github.com/hszhao/semseg FOLDER && pip install torch==2.13.0 ninja
    python benchmarks/original.py --semseg FOLDER                         # all parts, half an hour on two cores
    python benchmarks/original.py --semseg FOLDER --only psa_mask,layer   # some of them
    python benchmarks/original.py --semseg FOLDER --pytorch other/bin/python --json times.json

TensorFlow and PyTorch run in processes of their own, each on all cores, that take turns: while one is timed, the other
one waits. Both have the same weights and inputs; what they answer is compared. PyTorch's networks are in channels_last,
its fast layout on CPUs; bfloat16 is a mixed_bfloat16 policy here and autocast there (with the original's op, which has
none, in float32). Memory is the process's largest resident size during a run, less what it had before weights and
inputs were made.
"""

import argparse
import ctypes
import datetime
import gc
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PARTS = ("psa_mask", "layer", "network", "train")
PRECISIONS = ("float32", "bfloat16")
CLASSES = 150
CHANNELS, MID_CHANNELS = 2048, 512
REPOSITORY = "https://github.com/hszhao/semseg"
MASK_BATCH = 2
M_MMAP_THRESHOLD = -3  # of mallopt


# What both processes do


def work(side, folder):
    """Answers requests, one JSON object a line, until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "prepare":
            call = None
            before = resident_memory()
            call = side.prepare(**request["case"])
            call()
            answer = None
        elif request["do"] == "time":
            start = time.perf_counter()
            call()
            answer = time.perf_counter() - start
        elif request["do"] == "memory":
            answer = peak_memory(call)[1] - before
        elif request["do"] == "memory of the call":
            at_rest, peak = peak_memory(call)
            answer = peak - at_rest
        elif request["do"] == "save":
            side.save(call(), folder / request["name"])
            answer = None
        elif request["do"] == "describe":
            answer = side.describe()
        print(json.dumps(answer), file=answers, flush=True)


def resident_memory():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return status_bytes("VmRSS")


def peak_memory(call):
    """Resident size before a call and the largest during it, in bytes."""
    libc = ctypes.CDLL(None)
    # What a call leaves free must go back to the system, or it would still be there from those before.
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 16)
    call()
    at_rest = resident_memory()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    call()
    libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # where it comes to by itself in a process that takes such blocks
    return at_rest, status_bytes("VmHWM")


def status_bytes(name):
    return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def features_of(crop):
    """(size of the features, of the shrunk map, of the mask) of a crop."""
    features = (crop - 1) // 8 + 1
    shrunk = (features - 1) // 2 + 1
    return features, shrunk, 2 * shrunk - 1


def draw(seed, *shape):
    import numpy as np

    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def attention_tensors(height, width, batch):
    """Features, predictors and kernel of collect, and of distribute."""
    tensors = []
    for seed in (0, 3):
        tensors.append(draw(seed, batch, height, width, MID_CHANNELS))
        tensors.append(draw(seed + 1, batch, height, width, MID_CHANNELS).clip(0))
        tensors.append(draw(seed + 2, MID_CHANNELS, 2 * height - 1, 2 * width - 1) / MID_CHANNELS**0.5)
    return tensors


def draw_labels(batch, crop):
    import numpy as np

    return np.random.default_rng(1).integers(0, CLASSES, (batch, crop, crop))


# This package


class Ours:
    def __init__(self, folder):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(os.cpu_count())
        self.tf = tf
        self.folder = folder
        # What is loaded and set up once is no part of a case's memory.
        import psanet_tf
        import psanet_tf.training.recipe

        psanet_tf.PSALayer(4)(tf.zeros([1, 9, 9, 8]))

    def describe(self):
        return f"TensorFlow {self.tf.__version__}"

    def save(self, outputs, path):
        import numpy as np

        np.save(path, np.asarray(self.tf.cast(outputs, self.tf.float32)))

    def prepare(self, part, **case):
        return getattr(self, part)(**case)

    def psa_mask(self, size, direction, gradient):
        from psanet_tf import psa_mask

        tf = self.tf
        mask = tf.constant(draw(0, MASK_BATCH, size, size, (2 * size - 1) ** 2))
        cotangent = tf.constant(draw(1, MASK_BATCH, size * size, size * size))  # one gather serves both directions
        if not gradient:
            return tf.function(lambda: psa_mask(mask))

        @tf.function
        def differentiate():
            with tf.GradientTape() as tape:
                tape.watch(mask)
                attention = psa_mask(mask)
            return tape.gradient(attention, mask, cotangent)

        return differentiate

    def attention(self, height, width, batch, gradient, block_size):
        """Both directions of what `PSALayer` computes between its convolutions; for benchmarks/attention.py."""
        from psanet_tf.ops import psa_attention

        tf = self.tf
        block_size = tuple(block_size) if isinstance(block_size, list) else block_size
        tensors = [tf.constant(array) for array in attention_tensors(height, width, batch)]

        def attend(*tensors):
            halves = []
            for i, direction in enumerate(("collect", "distribute")):
                with tf.control_dependencies(halves):
                    halves.append(psa_attention(*tensors[3 * i : 3 * i + 3], direction, block_size=block_size))
            return tf.concat(halves, axis=-1)

        @tf.function(autograph=False)
        def run():
            if not gradient:
                return attend(*tensors)
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                loss = tf.reduce_sum(tf.square(attend(*tensors)))
            return tape.gradient(loss, tensors)

        return run

    def layer(self, crop, precision):
        from psanet_tf import PSALayer

        tf, (size, _, _) = self.tf, features_of(crop)
        layer = PSALayer(MID_CHANNELS, dtype=policy(precision))
        layer.build((None, size, size, CHANNELS))
        draw_weights(layer)
        self._hand_over(dict(psa_state(layer)), "psa")
        inputs = tf.cast(draw(0, 1, size, size, CHANNELS), layer.compute_dtype)
        return tf.function(lambda: layer(inputs, training=False))

    def network(self, crop, precision, batch):
        tf, model = self.tf, self._model(crop, precision)
        images = tf.constant(draw(0, batch, crop, crop, 3))
        inference = model.inference()
        return tf.function(lambda: inference(images, training=False))

    def train(self, crop, precision, batch):
        import numpy as np

        from psanet_tf.config import TrainSection
        from psanet_tf.data.catalog import dataset_info
        from psanet_tf.training.recipe import build_losses, build_optimizer

        model = self._model(crop, precision)
        section = TrainSection(precision=policy(precision))
        model.compile(
            build_optimizer(section, 1000),
            **build_losses(section, dataset_info("ade20k")),
            auto_scale_loss=False,
            jit_compile=False,
        )
        labels = draw_labels(batch, crop).astype(np.uint8)
        step = (draw(0, batch, crop, crop, 3), {"logits": labels, "aux_logits": labels})
        dataset = self.tf.data.Dataset.from_tensors(step).repeat()
        return lambda: model.fit(dataset, steps_per_epoch=1, shuffle=False, verbose=0).history["logits_loss"]

    def _model(self, crop, precision):
        from psanet_tf import PSANet, semseg_state_dict

        model = PSANet(CLASSES, depth=50, input_shape=(crop, crop, 3), dropout=0.0, dtype=policy(precision))
        self._hand_over(semseg_state_dict(model), "network")
        return model

    def _hand_over(self, state, name):
        """Writes the weights for the other process."""
        import numpy as np

        np.savez(self.folder / f"{name}.npz", **state)


def policy(precision):
    return {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]


def draw_weights(layer):
    """Kernels that leave the attention neither flat nor a single peak."""
    for seed, weight in enumerate(layer.weights):
        if len(weight.shape) == 4:
            weight.assign(draw(seed, *weight.shape) * (2 / weight.shape[2]) ** 0.5)


def psa_state(layer):
    """(the original's name, array) of every weight of its module `PSA`."""
    directions = {"": layer.collect, "_p": layer.distribute}
    pairs = [("proj.0", "proj.1", layer.proj_conv, layer.proj_bn)]
    for suffix, branch in directions.items():
        pairs.append((f"reduce{suffix}.0", f"reduce{suffix}.1", branch.reduce_conv, branch.reduce_bn))
        pairs.append((f"attention{suffix}.0", f"attention{suffix}.1", branch.attention_conv, branch.attention_bn))
        pairs.append((f"attention{suffix}.3", None, branch.mask_conv, None))
    for convolution_name, norm_name, convolution, norm in pairs:
        yield f"{convolution_name}.weight", convolution.kernel.numpy().transpose(3, 2, 0, 1)
        if norm is not None:
            statistics_of = {"running_mean": norm.moving_mean, "running_var": norm.moving_variance}
            for name, weight in {"weight": norm.gamma, "bias": norm.beta, **statistics_of}.items():
                yield f"{norm_name}.{name}", weight.numpy()


# The original


class Original:
    def __init__(self, folder, semseg):
        import torch
        from torch.utils import cpp_extension

        torch.set_num_threads(os.cpu_count())
        self.torch = torch
        self.folder = folder
        cpp_extension.load = _build_for_current_pytorch(cpp_extension.load)
        sys.path.insert(0, str(semseg))
        import lib.psa.functional as functional
        from model import psanet

        self.psa_mask_op = functional.psa_mask
        functional.psa_mask = self._psa_mask
        self.models = psanet
        psanet.PSA(8, 4, mask_h=9, mask_w=9).eval()(torch.zeros([1, 8, 9, 9]))

    def describe(self):
        return f"PyTorch {self.torch.__version__}"

    def save(self, outputs, path):
        import numpy as np

        np.save(path, outputs.detach().float().numpy())

    def prepare(self, part, **case):
        return getattr(self, part)(**case)

    def psa_mask(self, size, direction, gradient):
        torch = self.torch
        mask = draw(0, MASK_BATCH, size, size, (2 * size - 1) ** 2).transpose(0, 3, 1, 2).copy()
        mask = torch.from_numpy(mask).requires_grad_(gradient)
        kind = ("collect", "distribute").index(direction)

        def forward():
            return self.psa_mask_op(mask, kind, 2 * size - 1, 2 * size - 1)

        def comparable(outputs):  # as [N, p, q]
            outputs = outputs.reshape(MASK_BATCH, size * size, size * size)
            return outputs.transpose(1, 2) if direction == "collect" else outputs

        if not gradient:
            self.comparable = comparable
            return forward
        cotangent = torch.from_numpy(draw(1, MASK_BATCH, size * size, size * size))
        cotangent = comparable(cotangent).reshape(MASK_BATCH, size * size, size, size).contiguous()
        attention = forward()
        self.comparable = lambda outputs: outputs.permute(0, 2, 3, 1)
        return lambda: torch.autograd.grad(attention, mask, cotangent, retain_graph=True)[0]

    def attention(self, height, width, batch, gradient, block_size):
        torch = self.torch
        tensors = []
        for i, array in enumerate(attention_tensors(height, width, batch)):
            if i % 3 == 2:  # kernels [P, mask_h, mask_w] become those of a 1x1 convolution
                array = array.reshape(array.shape[0], -1).T[..., None, None].copy()
                tensors.append(torch.from_numpy(array).requires_grad_(gradient))
            else:
                tensors.append(self._images(array).requires_grad_(gradient))

        def attend():
            halves = []
            for kind in range(2):
                features, predictors, kernel = tensors[3 * kind : 3 * kind + 3]
                mask = torch.nn.functional.conv2d(predictors, kernel)
                attention = self._psa_mask(mask, kind, 2 * height - 1, 2 * width - 1)
                attention = torch.softmax(attention.flatten(2), dim=1)
                sums = torch.bmm(features.flatten(2), attention)
                halves.append(sums.reshape(features.shape))
            return torch.cat(halves, 1)

        self.comparable = lambda outputs: outputs.permute(0, 2, 3, 1)
        if gradient:
            return lambda: torch.autograd.grad(attend().square().sum(), tensors)

        def run():
            with torch.inference_mode():
                return attend()

        return run

    def layer(self, crop, precision):
        size, _, mask = features_of(crop)
        layer = self.models.PSA(CHANNELS, MID_CHANNELS, mask_h=mask, mask_w=mask)
        self._take_over(layer, "psa")
        return self._inference(layer, draw(0, 1, size, size, CHANNELS), precision)

    def network(self, crop, precision, batch):
        return self._inference(self._model(crop), draw(0, batch, crop, crop, 3), precision)

    def train(self, crop, precision, batch):
        torch, model = self.torch, self._model(crop).train()
        backbone = [model.layer0, model.layer1, model.layer2, model.layer3, model.layer4]
        groups = [{"params": module.parameters(), "lr": 0.01} for module in backbone]
        groups += [{"params": module.parameters(), "lr": 0.1} for module in (model.psa, model.cls, model.aux)]
        optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=1e-4)
        images = self._images(draw(0, batch, crop, crop, 3))
        labels = torch.from_numpy(draw_labels(batch, crop))

        def step():
            with self._autocast(precision):
                _, main_loss, aux_loss = model(images, labels)
            loss = main_loss + 0.4 * aux_loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return main_loss

        self.comparable = lambda loss: loss.reshape(1)
        return step

    def _psa_mask(self, mask, *arguments):
        """The op takes the memory of mask and gradient for float32 in PyTorch's usual layout, whatever they are."""
        attention = self.psa_mask_op(mask.float().contiguous(), *arguments)
        if attention.requires_grad:
            attention.register_hook(lambda gradient: gradient.contiguous())
        return attention

    def _model(self, crop):
        _, _, mask = features_of(crop)
        model = self.models.PSANet(50, dropout=0.0, classes=CLASSES, mask_h=mask, mask_w=mask, pretrained=False)
        self._take_over(model, "network")
        return model

    def _inference(self, model, inputs, precision):
        model, inputs = model.eval(), self._images(inputs)

        def run():
            with self.torch.inference_mode(), self._autocast(precision):
                return model(inputs)

        self.comparable = lambda outputs: outputs.permute(0, 2, 3, 1)
        return run

    def _images(self, images):
        images = self.torch.from_numpy(images).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=self.torch.channels_last)

    def _autocast(self, precision):
        return self.torch.autocast("cpu", self.torch.bfloat16, enabled=precision == "bfloat16")

    def _take_over(self, model, name):
        import numpy as np

        with np.load(self.folder / f"{name}.npz") as arrays:
            state = {key: self.torch.from_numpy(np.ascontiguousarray(arrays[key])) for key in arrays.files}
        missing, unexpected = model.load_state_dict(state, strict=False)
        wrong = [key for key in missing if not key.endswith("num_batches_tracked")] + unexpected
        if wrong:
            raise RuntimeError(f"the weights of {name} do not fit the original: {wrong}")
        model.to(memory_format=self.torch.channels_last)


class _Comparable(Original):
    """Outputs in the layout of this package."""

    def save(self, outputs, path):
        super().save(self.comparable(outputs), path)


def _build_for_current_pytorch(load):
    """`cpp_extension.load` of the original's sources, but beside them and with what PyTorch has renamed since."""

    def patched(name, sources, build_directory=None, **arguments):
        if not name.endswith("cpu"):
            return None
        folder = Path(tempfile.gettempdir()) / f"semseg_{name}_{os.getuid()}"
        folder.mkdir(exist_ok=True)
        for source in Path(sources[0]).parent.iterdir():
            if source.suffix in (".cpp", ".h"):
                text = source.read_text().replace(".data<", ".data_ptr<")
                target = folder / source.name
                if not target.is_file() or target.read_text() != text:  # ninja goes by the time of change
                    target.write_text(text)
        copies = [str(folder / Path(source).name) for source in sources]
        return load(name, copies, build_directory=str(folder), **arguments)

    return patched


# The process that asks both


class Process:
    """One side in a process of its own."""

    def __init__(self, python, side, arguments, folder):
        command = [python, __file__, "--worker", side, "--semseg", str(arguments.semseg), "--folder", str(folder)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        # ninja is where that Python's other programs are.
        environment["PATH"] = f"{Path(python).parent}{os.pathsep}{environment.get('PATH', '')}"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, env=environment, **pipes)
        self._side = side

    def ask(self, do, **request):
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the process of {self._side!r} has ended, its error is above")
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def cases(arguments):
    """(part, title, case, timings) of what is measured."""
    crop, batch, repetitions = arguments.crop, arguments.batch, arguments.repetitions
    if "psa_mask" in arguments.only:
        for size in (30, 45):
            for direction in ("collect", "distribute"):
                for gradient in (False, True):
                    title = f"{direction}, {MASK_BATCH} x {size} x {size}, {'gradient' if gradient else 'forward'}"
                    case = {"size": size, "direction": direction, "gradient": gradient}
                    yield "psa_mask", title, case, 3 * repetitions
    for precision in arguments.precisions:
        case = {"crop": crop, "precision": precision}
        size = features_of(crop)[0]
        if "layer" in arguments.only:
            yield "layer", f"1 x {size} x {size} x {CHANNELS}, {precision}", case, repetitions
        if "network" in arguments.only:
            yield "network", f"forward, 1 x {crop} x {crop}, {precision}", {**case, "batch": 1}, repetitions
        if "train" in arguments.only:
            title = f"step, {batch} x {crop} x {crop}, {precision}"
            yield "train", title, {**case, "batch": batch}, max(3, repetitions // 3)


def measure(ours, original, part, title, case, repetitions, folder):
    """One row of the table."""
    import numpy as np

    sides = {"ours": ours, "original": original}
    for side in sides.values():  # ours first: it hands its weights over
        side.ask("prepare", case={"part": part, **case})
    if part != "train":
        for name, side in sides.items():
            side.ask("save", name=f"{name}.npy")
        mine, theirs = (np.load(folder / f"{name}.npy") for name in sides)
        difference = float(np.abs(mine.reshape(theirs.shape) - theirs).max() / np.abs(theirs).max())
    else:
        difference = None
    times = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, side in sides.items():
            times[name].append(side.ask("time"))
    row = {"part": part, "case": title, "difference": difference}
    for name, side in sides.items():
        row[name] = {"seconds": statistics.median(times[name]), "bytes": side.ask("memory"), "times": times[name]}
    return row


def in_table(row):
    mine, theirs = row["ours"], row["original"]
    difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
    return (
        f"| {row['part']} | {row['case']} | {1e3 * theirs['seconds']:.1f} | {1e3 * mine['seconds']:.1f} "
        f"| {mine['seconds'] / theirs['seconds']:.2f} | {theirs['bytes'] / 1e6:.0f} | {mine['bytes'] / 1e6:.0f} "
        f"| {mine['bytes'] / max(theirs['bytes'], 1):.2f} | {difference} |"
    )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--semseg", type=Path, required=True, metavar="FOLDER", help=f"clone of {REPOSITORY}")
    parser.add_argument(
        "--pytorch", default=sys.executable, metavar="PYTHON", help="Python with PyTorch and ninja (default: this one)"
    )
    parser.add_argument(
        "--only", default=",".join(PARTS), help=f"parts, with commas between (default: {','.join(PARTS)})"
    )
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--crop", type=int, default=465, help="16n + 1")
    parser.add_argument("--batch", type=int, default=2, help="of the training step")
    parser.add_argument("--repetitions", type=int, default=9, help="timings of each side; of the op 3 times as many")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all timings there, too")
    parser.add_argument("--worker", choices=("ours", "original"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return arguments
    arguments.only = arguments.only.split(",")
    for part in arguments.only:
        if part not in PARTS:
            parser.error(f"--only must be among {', '.join(PARTS)}, got {part!r}")
    if arguments.crop < 33 or arguments.crop % 16 != 1:
        parser.error(f"--crop must be of the form 16n + 1, as the original needs it, and at least 33: {arguments.crop}")
    check_pytorch(parser, arguments)
    return arguments


def check_pytorch(parser, arguments):
    """Says how to get what the original's side needs, where that is missing."""
    if not (arguments.semseg / "lib" / "psa" / "src" / "cpu" / "psamask.cpp").is_file():
        parser.error(
            f"--semseg: {arguments.semseg} is no clone of the original: git clone {REPOSITORY} {arguments.semseg}"
        )
    arguments.semseg = arguments.semseg.resolve()
    if not shutil.which(arguments.pytorch):
        parser.error(f"--pytorch: there is no program {arguments.pytorch}")
    search = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, ['torch', 'ninja'])))"
    if subprocess.run([arguments.pytorch, "-c", search], check=False).returncode:
        parser.error(
            f"{arguments.pytorch} has no PyTorch or no ninja: pip install torch==2.13.0 ninja, or name another Python "
            "that has them with --pytorch"
        )


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    arguments = parse_arguments()
    if arguments.worker == "ours":
        work(Ours(arguments.folder), arguments.folder)
        return
    if arguments.worker == "original":
        work(_Comparable(arguments.folder, arguments.semseg), arguments.folder)
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = Process(sys.executable, "ours", arguments, folder)
        original = Process(arguments.pytorch, "original", arguments, folder)
        machine = (
            f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, {ours.ask('describe')}, "
            f"{original.ask('describe')}, load average {os.getloadavg()[0]:.1f}"
        )
        print(f"{machine}\n")
        print("| part | case | original ms | ours ms | ratio | original MB | ours MB | ratio | difference |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for part, title, case, repetitions in cases(arguments):
            rows.append(measure(ours, original, part, title, case, repetitions, folder))
            print(in_table(rows[-1]), flush=True)
        ours.close()
        original.close()
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
