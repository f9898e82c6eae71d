"""The original's side of the benchmarks that compare: `python side_original.py FOLDER DEVICE SEMSEG`.

SEMSEG is a clone of the original, whose op is compiled with PyTorch's present names. `sides.Process` starts it.
"""

import gc
import os
import sys
import tempfile
from pathlib import Path

from sides import (
    CHANNELS,
    CLASSES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MASK_BATCH,
    MID_CHANNELS,
    ResidentMemory,
    attention_tensors,
    draw,
    draw_labels,
    draw_pixels,
    features_of,
    work,
)


class Original:
    def __init__(self, folder, device, semseg):
        import torch
        from torch.utils import cpp_extension

        torch.set_num_threads(os.cpu_count())
        if device == "gpu":
            if not torch.cuda.is_available():
                sys.exit("PyTorch sees no GPU: torch.cuda.is_available() is False")
            # What TensorFlow does by itself: TF32 products, and the fastest of cuDNN's convolutions.
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        self.torch = torch
        self.folder = folder
        self.device = "cuda" if device == "gpu" else "cpu"
        self.memory = ResidentMemory() if device == "cpu" else _GpuMemory(torch)
        cpp_extension.load = _build_for_current_pytorch(cpp_extension.load)
        sys.path.insert(0, str(semseg))
        import lib.psa.functional as functional
        from model import psanet

        self.psa_mask_op = functional.psa_mask
        functional.psa_mask = self._psa_mask
        self.models = psanet
        layer = psanet.PSA(8, 4, mask_h=9, mask_w=9).to(self.device)
        layer.eval()(torch.zeros([1, 8, 9, 9], device=self.device))

    def describe(self):
        return f"PyTorch {self.torch.__version__}"

    def wait(self):
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def save(self, outputs, path):
        import numpy as np

        np.save(path, outputs.detach().float().cpu().numpy())

    def prepare(self, part, **case):
        return getattr(self, part)(**case)

    def psa_mask(self, size, direction, gradient):
        torch = self.torch
        mask = draw(0, MASK_BATCH, size, size, (2 * size - 1) ** 2).transpose(0, 3, 1, 2).copy()
        mask = torch.from_numpy(mask).to(self.device).requires_grad_(gradient)
        kind = ("collect", "distribute").index(direction)

        def forward():
            return self.psa_mask_op(mask, kind, 2 * size - 1, 2 * size - 1)

        def comparable(outputs):  # as [N, p, q]
            outputs = outputs.reshape(MASK_BATCH, size * size, size * size)
            return outputs.transpose(1, 2) if direction == "collect" else outputs

        if not gradient:
            self.comparable = comparable
            return forward
        cotangent = torch.from_numpy(draw(1, MASK_BATCH, size * size, size * size)).to(self.device)
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
                tensors.append(torch.from_numpy(array).to(self.device).requires_grad_(gradient))
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

    def export(self, crop, precision, batch):
        torch, model = self.torch, self._model(crop).eval()
        pixels = self._images(draw_pixels(batch, crop).astype("uint8"))
        mean, std = (
            255 * torch.tensor(values, device=self.device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD)
        )

        def run():
            with torch.inference_mode(), self._autocast(precision):
                return torch.softmax(model((pixels - mean) / std).float(), 1)

        self.comparable = lambda outputs: outputs.permute(0, 2, 3, 1)
        return run

    def train(self, crop, precision, batch, steps):
        torch, model = self.torch, self._model(crop).train()
        backbone = [model.layer0, model.layer1, model.layer2, model.layer3, model.layer4]
        groups = [{"params": module.parameters(), "lr": 0.01} for module in backbone]
        groups += [{"params": module.parameters(), "lr": 0.1} for module in (model.psa, model.cls, model.aux)]
        optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=1e-4)
        images = self._images(draw(0, batch, crop, crop, 3))
        labels = torch.from_numpy(draw_labels(batch, crop)).to(self.device)

        def step():
            with self._autocast(precision):
                _, main_loss, aux_loss = model(images, labels)
            loss = main_loss + 0.4 * aux_loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return main_loss

        def run():
            for _ in range(steps):
                loss = step()
            return loss

        self.comparable = lambda loss: loss.reshape(1)
        return run

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
        images = self.torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=self.torch.channels_last)

    def _autocast(self, precision):
        return self.torch.autocast(self.device, self.torch.bfloat16, enabled=precision == "bfloat16")

    def _take_over(self, model, name):
        import numpy as np

        with np.load(self.folder / f"{name}.npz") as arrays:
            state = {key: self.torch.from_numpy(np.ascontiguousarray(arrays[key])) for key in arrays.files}
        missing, unexpected = model.load_state_dict(state, strict=False)
        wrong = [key for key in missing if not key.endswith("num_batches_tracked")] + unexpected
        if wrong:
            raise RuntimeError(f"the weights of {name} do not fit the original: {wrong}")
        model.to(self.device, memory_format=self.torch.channels_last)


class _GpuMemory:
    """What PyTorch's allocator has given out, of all that it holds."""

    def __init__(self, torch):
        self._of = torch.cuda

    def in_use(self):
        gc.collect()
        return self._of.memory_allocated()

    def reset_peak(self):
        self._of.reset_peak_memory_stats()

    def peak(self):
        return self._of.max_memory_allocated()


class _Comparable(Original):
    """Outputs in the layout of this package."""

    def save(self, outputs, path):
        super().save(self.comparable(outputs), path)


def _build_for_current_pytorch(load):
    """`cpp_extension.load` of the original's sources, but beside them and with what PyTorch has renamed since."""

    def patched(name, sources, build_directory=None, **arguments):
        folder = Path(tempfile.gettempdir()) / f"semseg_{name}_{os.getuid()}"
        folder.mkdir(exist_ok=True)
        for source in Path(sources[0]).parent.iterdir():
            if source.suffix in (".cpp", ".cu", ".h"):
                text = source.read_text().replace(".data<", ".data_ptr<")
                target = folder / source.name
                if not target.is_file() or target.read_text() != text:  # ninja goes by the time of change
                    target.write_text(text)
        copies = [str(folder / Path(source).name) for source in sources]
        return load(name, copies, build_directory=str(folder), **arguments)

    return patched


if __name__ == "__main__":
    work(_Comparable(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
