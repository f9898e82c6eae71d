"""`psanet doctor` with the op in use; without it: tests/custom_op/test_op_library.py."""

import pytest
import tensorflow as tf
import typer

from psanet_cli import doctor as doctor_module
from psanet_tf.ops import psa_mask as psa_mask_function


def test_prints_what_is_in_use_and_runs_it(library, capsys):
    doctor_module.doctor()
    lines = [tuple(line.split(": ", 1)) for line in capsys.readouterr().out.splitlines()]
    facts = {name.strip(): value.strip() for name, value in lines}
    assert facts["TensorFlow"].startswith(tf.__version__)
    assert facts["psa_mask"] == "compiled op; stock TensorFlow ops in XLA"
    assert facts["Op library"] == str(library.path)
    assert facts["built with"] == library.stamp["compiler"]
    assert "CPU: bfloat16, float16, float32, float64" in facts["PsaMask"]
    assert facts["Run on CPU:0"] == "op equals stock ops in every dtype, with gradient"


def test_wrong_numbers_are_an_error(library, capsys, monkeypatch):
    def wrong(mask, mask_size, implementation):
        attention = psa_mask_function(mask, mask_size, implementation)
        return attention * 2 if implementation == "custom" and mask.dtype == tf.float32 else attention

    monkeypatch.setattr("psanet_tf.ops.psa_mask", wrong)
    with pytest.raises(typer.Exit) as raised:
        doctor_module.doctor()
    assert raised.value.exit_code == 1
    assert "WRONG for float32" in capsys.readouterr().out
