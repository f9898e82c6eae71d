"""`psanet doctor`: what is installed, which form of psa_mask is in use and why, whether it is right and how fast."""

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Annotated

import typer

from psanet_cli.app import app

# Random sizes that every device runs in every dtype: at each call, and before times are measured.
_FEW_CASES, _MANY_CASES = 1, 20


@app.command()
def doctor(
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Check more, and time psa_mask on every device: a few minutes.")
    ] = False,
):
    """Print versions, devices and which form of psa_mask is in use and why; run it on every device.

    Compiles the op if that has not happened yet. Exit status 1 if it gives wrong numbers on a device. With
    --benchmark a table in Markdown follows that names the machine, to be sent in as it is.

    Example: psanet doctor --benchmark > psa_mask.md
    """
    import tensorflow as tf

    devices = [device for device in tf.config.list_logical_devices() if device.device_type in ("CPU", "GPU")]
    kinds = {device.name.removeprefix("/device:"): device.device_type for device in devices}
    facts = _facts(tf, devices)
    for name, value in facts.items():
        _print(name, value)
    _describe_op()
    problems = {name: _op_problem(kind) for name, kind in kinds.items()}
    right = [_runs_right(name, problem, benchmark) for name, problem in problems.items()]
    if not all(right):
        raise typer.Exit(1)
    if benchmark:
        _print_times(facts, problems)


def _facts(tf, devices):
    from psanet_tf import __version__
    from psanet_tf.keras_api import keras

    facts = {
        "psanet-tf": __version__,
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "TensorFlow": f"{tf.__version__} ({tf.version.GIT_VERSION}){_cuda_of(tf)}",
        "Keras": _describe_keras(keras),
        "Processor": f"{_processor()}, {_cores()} cores",
        "Devices": ", ".join(device.name.removeprefix("/device:") + _model(tf, device) for device in devices),
    }
    if any(device.device_type == "GPU" for device in devices):
        facts["NVIDIA driver"] = _driver()
    return facts


def _cores():
    from psanet_tf.cores import usable_cores

    usable, all_cores = usable_cores(), os.cpu_count()
    return str(usable) if usable == all_cores else f"{usable} of {all_cores}"


def _describe_keras(keras):
    from psanet_tf.keras_api import LEGACY_KERAS

    by = ", by TF_USE_LEGACY_KERAS" if keras.__name__ == "tf_keras" else ""
    lacking = "; training, evaluation and export need Keras 3" if LEGACY_KERAS else ""
    return f"{keras.__version__} (package {keras.__name__}{by}){lacking}"


def _describe_op():
    from psanet_tf.ops import op_build, op_library
    from psanet_tf.ops.psa_mask import reason_for_stock

    reason = reason_for_stock()
    _print("psa_mask", f"stock TensorFlow ops: {reason}" if reason else "compiled op; stock TensorFlow ops in XLA")
    try:
        library = op_library.load_op_library()
    except op_library.OpUnavailableError:
        _print("Op library", "none")
    else:
        stamp = library.stamp
        _print("Op library", library.path)
        _print("  built for", f"TensorFlow {stamp['tensorflow']}, {stamp['machine']}, sources {stamp['sources']}")
        _print("  built with", stamp["compiler"])
        for op, kernels in op_library.registered_kernels().items():
            text = "; ".join(f"{device}: {', '.join(dtypes)}" for device, dtypes in kernels.items())
            _print(f"  {op}", text)
    try:
        _print("Op cache", op_library.cache_folder())
    except OSError as error:
        _print("Op cache", error)
    try:
        compiler = op_build.find_compiler()
        _print("C++ compiler", f"{compiler.path}, {compiler.version}")
    except op_build.BuildError as error:
        _print("C++ compiler", error)


def _op_problem(kind):
    """Why the op cannot run on devices of a kind, or None."""
    from psanet_tf.ops import OpUnavailableError, load_op_library

    try:
        library = load_op_library()
    except OpUnavailableError as error:
        return str(error)
    return library.gpu_problem() if kind == "GPU" else None


def _runs_right(device, problem, thorough):
    """Whether what can run on a device gives NumPy's numbers there, forward and gradient; prints what was run."""
    import tensorflow as tf

    from psanet_tf.ops import op_check

    cases = _MANY_CASES if thorough else _FEW_CASES
    forms = {"stock": "stock ops"} if problem else {"custom": "op", "stock": "stock ops"}
    wrong = []
    for form, name in forms.items():
        try:
            difference = op_check.difference(device, form, cases)
        except tf.errors.OpError as error:
            difference = f"{type(error).__name__}: {error.message}"
        if difference:
            wrong.append(f"{name}: {difference}")
    right = f"{' and '.join(forms.values())} right in every dtype, with gradient; random sizes tried: {cases}"
    _print(f"Run on {device}", f"WRONG: {'; '.join(wrong)}" if wrong else right)
    if problem:
        _print("  skipped", f"the op: {problem}")
    elif thorough:
        wrong += _runs_right_with_many_elements(device)
    return not wrong


def _runs_right_with_many_elements(device):
    import tensorflow as tf

    from psanet_tf.ops import op_check

    if not device.startswith("GPU"):
        _print("  skipped", "tensors of more than 2^31 elements: for GPUs")
        return []
    try:
        difference = op_check.many_elements_difference(device)
    except tf.errors.ResourceExhaustedError:
        _print("  skipped", "tensors of more than 2^31 elements: they do not fit")
        return []
    _print("  many elements", f"WRONG: {difference}" if difference else "op right beyond 2^31")
    return [difference] if difference else []


def _print_times(facts, problems):
    from psanet_tf.ops import op_benchmark

    machine = "; ".join(f"{name} {value}" for name, value in facts.items())
    print(f"\n`psanet doctor --benchmark`, {datetime.date.today()}, medians. {machine}.\n")
    print(op_benchmark.TABLE_HEADER)
    for device, problem in problems.items():
        for row in op_benchmark.table_rows(device, with_op=problem is None):
            print(row, flush=True)
    if not any(device.startswith("GPU") for device in problems):
        print("\nNo GPU: none was timed.")


def _processor():
    try:
        names = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _driver():
    try:
        return Path("/proc/driver/nvidia/version").read_text().partition("\n")[0].partition(": ")[2].strip()
    except OSError as error:
        return f"unknown ({error})"


def _cuda_of(tf):
    build = tf.sysconfig.get_build_info()
    return f", built for CUDA {build['cuda_version']}" if build.get("is_cuda_build") else ", CPU only"


def _model(tf, device):
    if device.device_type != "GPU":
        return ""
    physical = tf.config.get_visible_devices("GPU")[int(device.name.rpartition(":")[2])]
    details = tf.config.experimental.get_device_details(physical)
    capability = ".".join(map(str, details.get("compute_capability", ())))
    return f" ({details.get('device_name', 'unknown model')}, compute capability {capability or 'unknown'})"


def _print(name, value):
    print(f"{name + ':':<18} {value}")
