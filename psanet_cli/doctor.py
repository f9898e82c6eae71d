"""`psanet doctor`: what is installed, which form of psa_mask is in use, and why."""

import importlib.metadata
import platform

import typer

from psanet_cli.app import app


@app.command()
def doctor():
    """Print versions, devices and which form of psa_mask is in use and why; run it on every device.

    Compiles the op if that has not happened yet. Exit status 1 if it gives wrong numbers on a device.

    Example: psanet doctor
    """
    import tensorflow as tf

    from psanet_tf.keras_api import LEGACY_KERAS, keras

    _print("psanet-tf", _version("psanet-tf"))
    _print("Python", f"{platform.python_version()} on {platform.platform()}")
    _print("TensorFlow", f"{tf.__version__} ({tf.version.GIT_VERSION}){_cuda_of(tf)}")
    _print("Keras", f"{keras.__version__}, {'tf_keras (TF_USE_LEGACY_KERAS)' if LEGACY_KERAS else 'Keras 3'}")
    devices = tf.config.list_logical_devices()
    _print("Devices", ", ".join(device.name.removeprefix("/device:") + _model(tf, device) for device in devices))
    if not _describe_op():
        return
    right = [_runs_right(tf, device.name) for device in devices if device.device_type in ("CPU", "GPU")]
    if not all(right):
        raise typer.Exit(1)


def _describe_op():
    """Prints what there is of the op; returns whether it is in use."""
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
    return reason is None


def _runs_right(tf, device):
    """Whether the op and stock ops agree bit for bit on this device, forward and gradient; prints a line."""
    from psanet_tf.ops import psa_mask
    from psanet_tf.ops.psa_mask import DTYPES

    wrong = []
    with tf.device(device):
        for dtype in DTYPES:
            mask = tf.cast(tf.random.stateless_normal([2, 5, 7, 9 * 13], [1, 2]), dtype)
            cotangent = tf.cast(tf.random.stateless_normal([2, 35, 35], [3, 4]), dtype)
            results = [_forward_and_gradient(tf, psa_mask, mask, cotangent, form) for form in ("custom", "stock")]
            if not all(bool(tf.reduce_all(a == b)) for a, b in zip(*results, strict=True)):
                wrong.append(dtype.name)
    name = device.removeprefix("/device:")
    _print(
        f"Run on {name}",
        f"WRONG for {', '.join(wrong)}" if wrong else "op equals stock ops in every dtype, with gradient",
    )
    return not wrong


def _forward_and_gradient(tf, psa_mask, mask, cotangent, implementation):
    with tf.GradientTape() as tape:
        tape.watch(mask)
        attention = psa_mask(mask, (9, 13), implementation)
    return attention, tape.gradient(attention, mask, cotangent)


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


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        from psanet_tf import __version__

        return f"{__version__}, run from its source tree"


def _print(name, value):
    print(f"{name + ':':<18} {value}")
