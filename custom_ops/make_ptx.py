"""Compiles the CUDA kernels to the PTX that the op's library holds: psa_mask_kernel.cu to psa_mask_ptx.h.

Run it after a change of the kernels' sources, on any Linux machine, without a GPU:

    pip install nvidia-cuda-nvrtc-cu11==11.8.89
    python custom_ops/make_ptx.py

CUDA 11.8 on purpose: its PTX 7.8 is taken by every driver that CUDA 12 runs on, whose own PTX is not. A driver compiles
the PTX for its GPU, whatever that is from compute capability 6.0 on.
"""

import ctypes
import hashlib
import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCES = ("psa_mask_kernel.cu", "psa_mask_vectors.h", "psa_mask_window.h")
TARGET = FOLDER / "psa_mask_ptx.h"
NVRTC_RELEASE = (11, 8)
OPTIONS = ("--gpu-architecture=compute_60", "--std=c++17", "--device-as-default-execution-space")
DIGEST_MARK = "Digest of the sources: "

_HEADER = """\
// Made from psa_mask_kernel.cu by make_ptx.py with NVRTC {release}. Do not edit.
// {mark}{digest}

#ifndef PSANET_CUSTOM_OPS_PSA_MASK_PTX_H_
#define PSANET_CUSTOM_OPS_PSA_MASK_PTX_H_

namespace psanet {{

inline constexpr char kPtx[] = R"ptx({ptx})ptx";

}}  // namespace psanet

#endif  // PSANET_CUSTOM_OPS_PSA_MASK_PTX_H_
"""


def sources_digest() -> str:
    """What the PTX depends on besides NVRTC: names and contents of the sources, and the options."""
    digest = hashlib.sha256(" ".join(OPTIONS).encode())
    for name in SOURCES:
        digest.update(f"\0{name}\0".encode() + (FOLDER / name).read_bytes())
    return digest.hexdigest()


def recorded_digest() -> str:
    """The digest of the sources that the PTX in psa_mask_ptx.h was made from."""
    return TARGET.read_text().partition(DIGEST_MARK)[2].partition("\n")[0]


def recorded_ptx() -> str:
    """The PTX in psa_mask_ptx.h."""
    return TARGET.read_text().partition('R"ptx(')[2].partition(')ptx"')[0]


def find_nvrtc() -> ctypes.CDLL | None:
    """NVRTC of the package nvidia-cuda-nvrtc-cu11; None where it is not installed."""
    try:
        spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        return None
    for folder in (spec and spec.submodule_search_locations) or []:
        for library in sorted(Path(folder).glob("lib/libnvrtc.so.11*")):
            return ctypes.CDLL(str(library))
    return None


def compile_ptx(nvrtc: ctypes.CDLL) -> str:
    """The PTX of the kernels.

    Raises:
        RuntimeError: another release of NVRTC, or the sources do not compile.
    """
    numbers = ctypes.c_int(), ctypes.c_int()
    nvrtc.nvrtcVersion(*map(ctypes.byref, numbers))
    release = tuple(number.value for number in numbers)
    if release != NVRTC_RELEASE:
        raise RuntimeError(f"this is NVRTC {_dotted(release)}, the PTX is made with {_dotted(NVRTC_RELEASE)}")
    name, *headers = SOURCES
    texts = [(FOLDER / header).read_bytes() for header in headers]
    array = ctypes.c_char_p * len(headers)
    program = ctypes.c_void_p()
    _check(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program),
            (FOLDER / name).read_bytes(),
            name.encode(),
            len(headers),
            array(*texts),
            array(*(header.encode() for header in headers)),
        )
    )
    options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
    # It leaves its thread in the C locale, in which Python would read and write text as ASCII.
    with ThreadPoolExecutor(1) as thread:
        status = thread.submit(nvrtc.nvrtcCompileProgram, program, len(OPTIONS), options).result()
    if status:
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        raise RuntimeError(f"NVRTC does not take the sources:\n{log}")
    ptx = _text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    _check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
    return ptx.rstrip("\n") + "\n"


def _text(get_size, get, program):
    size = ctypes.c_size_t()
    _check(get_size(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(get(program, text))
    return text.value.decode()


def _dotted(release):
    return ".".join(map(str, release))


def _check(status):
    if status:
        raise RuntimeError(f"NVRTC failed with status {status}")


def main() -> int:
    """Exit status: 0 written, 2 there is no NVRTC 11.8."""
    nvrtc = find_nvrtc()
    if nvrtc is None:
        print("make_ptx: no NVRTC: pip install nvidia-cuda-nvrtc-cu11==11.8.89", file=sys.stderr)
        return 2
    ptx = compile_ptx(nvrtc)
    TARGET.write_text(
        _HEADER.format(release=_dotted(NVRTC_RELEASE), mark=DIGEST_MARK, digest=sources_digest(), ptx=ptx)
    )
    print(f"{TARGET}: {len(ptx)} bytes of PTX")
    return 0


if __name__ == "__main__":
    sys.exit(main())
