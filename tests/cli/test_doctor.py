"""`psanet doctor` with the op in use; without it: tests/custom_op/test_op_library.py."""

import re
import types

import numpy as np
import pytest
import tensorflow as tf
import typer

from psanet_cli import doctor as doctor_module
from psanet_tf import keras_api
from psanet_tf.ops import op_benchmark, op_check, op_library
from psanet_tf.ops import psa_mask as psa_mask_function


def printed_facts(text):
    lines = [tuple(line.split(": ", 1)) for line in text.splitlines() if ": " in line]
    return {name.strip(): value.strip() for name, value in lines}


def test_prints_what_is_in_use_and_runs_it(library, capsys):
    doctor_module.doctor()
    facts = printed_facts(capsys.readouterr().out)
    assert facts["TensorFlow"].startswith(tf.__version__)
    assert facts["psa_mask"] == "compiled op; stock TensorFlow ops in XLA"
    assert facts["Op library"] == str(library.path)
    assert facts["built with"] == library.stamp["compiler"]
    assert facts["PsaMask"] == "CPU: bfloat16, float16, float32, float64; GPU: bfloat16, float16, float32, float64"
    assert facts["Run on CPU:0"] == "op and stock ops right in every dtype, with gradient; random sizes tried: 1"


@pytest.mark.parametrize(
    ("package", "version", "legacy", "words"),
    [
        ("keras", "3.15.1", False, "3.15.1 (package keras)"),
        ("keras", "2.15.0", True, "2.15.0 (package keras); training, evaluation and export need Keras 3"),
        (
            "tf_keras",
            "2.20.1",
            True,
            "2.20.1 (package tf_keras, by TF_USE_LEGACY_KERAS); training, evaluation and export need Keras 3",
        ),
    ],
)
def test_it_says_which_keras_is_in_use(monkeypatch, package, version, legacy, words):
    module = types.ModuleType(package)
    module.__version__ = version
    monkeypatch.setattr(keras_api, "keras", module)
    monkeypatch.setattr(keras_api, "LEGACY_KERAS", legacy)
    assert doctor_module._facts(tf, [])["Keras"] == words


@pytest.mark.parametrize("form", ["custom", "stock"])
def test_wrong_numbers_are_an_error(library, capsys, monkeypatch, form):
    def wrong(mask, mask_size, implementation):
        attention = psa_mask_function(mask, mask_size, implementation)
        return attention * 2 if implementation == form and mask.dtype == tf.float32 else attention

    monkeypatch.setattr(op_check, "psa_mask", wrong)
    monkeypatch.setattr(doctor_module, "_MANY_CASES", 1)
    with pytest.raises(typer.Exit) as raised:
        doctor_module.doctor(benchmark=True)
    assert raised.value.exit_code == 1
    name = {"custom": "op", "stock": "stock ops"}[form]
    output = capsys.readouterr().out
    assert re.search(rf"Run on CPU:0: *WRONG: {name}: forward in float32, N x H x W \d+ x \d+ x \d+, mask", output)
    assert op_benchmark.TABLE_HEADER not in output


def test_kernel_that_runs_elsewhere_is_noticed(library, monkeypatch):
    def elsewhere(*arguments):
        with tf.device("CPU:1"):
            return tf.identity(psa_mask_function(*arguments))

    assert op_check.difference("CPU:1", "custom", 1) is None
    monkeypatch.setattr(op_check, "psa_mask", elsewhere)
    assert re.fullmatch("in float16 it ran on .*:CPU:1", op_check.difference("CPU:0", "custom", 1))


def test_kernel_that_fails_is_an_error(library, capsys, monkeypatch):
    def failing(mask, mask_size, implementation):
        if implementation == "custom":
            raise tf.errors.InternalError(None, None, "CUDA kernel of PsaMask: cuLaunchKernel failed with 700")
        return psa_mask_function(mask, mask_size, implementation)

    monkeypatch.setattr(op_check, "psa_mask", failing)
    with pytest.raises(typer.Exit):
        doctor_module.doctor()
    assert "WRONG: op: InternalError: CUDA kernel of PsaMask: cuLaunchKernel failed" in capsys.readouterr().out


@pytest.fixture
def tiny(monkeypatch):
    """Tiny sizes on one device."""
    cpu = tf.config.list_logical_devices("CPU")[0]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: [cpu] if kind in (None, "CPU") else [])
    monkeypatch.setattr(op_benchmark, "SIZES", {"CPU": ((2, 3, 4),)})
    monkeypatch.setattr(op_benchmark, "REPETITIONS", 1)
    monkeypatch.setattr(doctor_module, "_MANY_CASES", 2)


def table(text):
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows]


def test_benchmark_prints_a_table_that_names_the_machine(library, tiny, capsys):
    doctor_module.doctor(benchmark=True)
    output = capsys.readouterr().out
    facts = printed_facts(output)
    assert re.fullmatch(r".+, (\d+ of )?\d+ cores", facts["Processor"])
    assert facts["Run on CPU:0"].startswith(
        "op and stock ops right in every dtype, with gradient; random sizes tried: 2"
    )
    assert re.search(r"skipped: *tensors of more than 2\^31 elements: for GPUs", output)
    assert "No GPU: none was timed." in output
    (heading,) = (line for line in output.splitlines() if line.startswith("`psanet doctor --benchmark`, 20"))
    for name in ("psanet-tf", "Python", "TensorFlow", "Keras", "Processor", "Devices"):
        assert f"{name} {facts[name]}" in heading
    header, *rows = table(output)
    assert {len(row) for row in rows} == {len(header)}
    expected = [[dtype, direction] for dtype in ("float32", "bfloat16") for direction in ("forward", "gradient")]
    assert [row[:2] for row in rows] == [["CPU:0", "2 x 3 x 4"]] * 4
    assert [row[2:4] for row in rows] == expected
    for row in rows:
        op, stock, in_xla, copy, stock_by_op, op_by_copy, _ = map(float, row[4:])
        assert min(op, copy) > 0
        assert min(stock, in_xla) > 0
        assert stock_by_op == pytest.approx(stock / op, abs=0.06, rel=0.02)
        assert op_by_copy == pytest.approx(op / copy, rel=0.2)


def test_benchmark_without_the_op_says_so_and_times_the_rest(tiny, monkeypatch, capsys):
    monkeypatch.setattr(op_library, "_state", op_library.OpUnavailableError("no C++ compiler"))
    doctor_module.doctor(benchmark=True)
    output = capsys.readouterr().out
    facts = printed_facts(output)
    assert facts["psa_mask"] == "stock TensorFlow ops: no C++ compiler"
    assert facts["Run on CPU:0"].startswith("stock ops right in every dtype")
    assert re.search(r"skipped: *the op: no C\+\+ compiler", output)
    _, *rows = table(output)
    assert len(rows) == 4
    for row in rows:
        assert [row[4], *row[8:]] == ["-"] * 4
        assert min(map(float, row[5:8])) > 0


def test_sizes_that_do_not_fit_are_rows_too(library, tiny, monkeypatch):
    def exhausted(*arguments):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    monkeypatch.setattr(op_benchmark, "psa_mask_stock", exhausted)
    rows = table("\n".join(op_benchmark.table_rows("CPU:0", with_op=True)))
    assert [row[5:7] for row in rows] == [["does not fit", "does not fit"]] * 4
    assert all(float(row[4]) > 0 for row in rows)
    monkeypatch.setattr(op_benchmark, "_copy", exhausted)
    rows = table("\n".join(op_benchmark.table_rows("CPU:0", with_op=True)))
    assert [row[4] for row in rows] == ["does not fit"] * 2


def test_tensors_of_many_elements_are_checked_on_a_gpu(library, monkeypatch, capsys):
    """The device is a CPU by the name of a GPU, and the tensors are small: what is tested is what is made of it."""
    check = op_check.many_elements_difference
    monkeypatch.setattr(op_check, "many_elements_difference", lambda device: check("CPU:0", (3, 4, 5)))
    assert doctor_module._runs_right_with_many_elements("GPU:0") == []
    assert "op right beyond 2^31" in capsys.readouterr().out

    monkeypatch.setattr(op_check, "psa_mask", lambda *arguments: psa_mask_function(*arguments) * 2)
    assert doctor_module._runs_right_with_many_elements("GPU:0") == ["forward of the last of 3 maps of 4 x 5"]
    assert "WRONG: forward of the last of 3 maps" in capsys.readouterr().out

    def exhausted(device):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    monkeypatch.setattr(op_check, "many_elements_difference", exhausted)
    assert doctor_module._runs_right_with_many_elements("GPU:0") == []
    assert "elements: they do not fit" in capsys.readouterr().out


def test_numpy_reference_gives_the_golden_numbers(golden):
    arrays, cases = golden("psa_mask")
    for case in cases:
        key = case["key"]
        index = op_check.absolute_indices((case["H"], case["W"]), (case["mask_h"], case["mask_w"]))
        x, y, gy, gx = (arrays[f"{key}/{name}"] for name in ("x", "y", "gy", "gx"))
        x, gx = (array.reshape(case["N"], case["H"] * case["W"], -1) for array in (x, gx))
        np.testing.assert_array_equal(op_check.numpy_forward(x, index), y, err_msg=key)
        np.testing.assert_array_equal(op_check.numpy_gradient(gy, index, x.shape[2]), gx, err_msg=key)
