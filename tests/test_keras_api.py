"""Which Keras is taken, and what is refused without Keras 3."""

import importlib
import importlib.util
import sys
import types

import pytest

import psanet_tf
from psanet_tf import keras_api
from psanet_tf.keras_api import LEGACY_KERAS, keras, needs_keras_3, needs_tf_keras

PARTS = ("training", "evaluation")


@pytest.fixture
def keras_2(monkeypatch):
    """As beside TensorFlow 2.15."""
    module = types.ModuleType("keras")
    module.__version__ = "2.15.0"
    monkeypatch.setattr(keras_api, "keras", module)
    monkeypatch.setattr(keras_api, "LEGACY_KERAS", True)
    monkeypatch.setattr(keras_api, "_ASKED_FOR_LEGACY", False)


def imported_anew(part):
    for name in [name for name in sys.modules if name.startswith(f"psanet_tf.{part}")]:
        del sys.modules[name]
    importlib.import_module(f"psanet_tf.{part}")


def test_the_version_tells_keras_2_from_keras_3():
    major = int(keras.__version__.partition(".")[0])
    assert LEGACY_KERAS is (major < 3)


def test_what_needs_keras_3_says_which_tensorflow_brings_it(keras_2, monkeypatch):
    with pytest.raises(
        ImportError,
        match=r"^flying needs Keras 3, which comes with TensorFlow 2.16 and later, and this is Keras 2.15.0: ",
    ):
        needs_keras_3("flying")
    monkeypatch.setattr(keras_api, "_ASKED_FOR_LEGACY", True)
    with pytest.raises(
        ImportError, match="^flying needs Keras 3, and TF_USE_LEGACY_KERAS asks for Keras 2.15.0: unset it$"
    ):
        needs_keras_3("flying")


@pytest.mark.parametrize("part", PARTS)
def test_parts_that_need_keras_3_refuse_another_when_they_are_imported(part, keras_2, monkeypatch):
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    monkeypatch.delattr(psanet_tf, part, raising=False)
    with pytest.raises(ImportError, match=f"^{part} needs Keras 3"):
        imported_anew(part)


def test_the_garden_needs_legacy_keras_which_keras_2_is_not(keras_2, monkeypatch):
    with pytest.raises(
        ImportError, match="^flying needs legacy Keras, and this is Keras 2.15.0: .* TF_USE_LEGACY_KERAS=1 before"
    ):
        needs_tf_keras("flying")
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    with pytest.raises(ImportError, match=r"^psanet_tf\.garden needs legacy Keras"):
        imported_anew("garden")


def test_the_garden_names_its_extra(keras_2, monkeypatch):
    monkeypatch.setattr(keras_api.keras, "__name__", "tf_keras")
    monkeypatch.setattr(sys, "modules", sys.modules | {"official": None, "official.core": None})
    with pytest.raises(ImportError, match=r"^psanet_tf\.garden needs official.*: pip install 'psanet-tf\[garden\]'$"):
        imported_anew("garden")


def test_an_export_needs_keras_3(keras_2, tmp_path):
    from psanet_tf.export import export_saved_model

    with pytest.raises(ImportError, match="^an export needs Keras 3"):
        export_saved_model(None, tmp_path, None)


@pytest.mark.skipif(not LEGACY_KERAS, reason="this is Keras 3")
@pytest.mark.parametrize("part", PARTS)
def test_they_are_refused_here(part):
    with pytest.raises(ImportError, match=f"^{part} needs Keras 3"):
        imported_anew(part)


def chosen():
    """keras_api as a module of its own, made in the environment as it is."""
    spec = importlib.util.spec_from_file_location("another_keras_api", keras_api.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_legacy_keras_is_named_where_it_is_asked_for_and_missing(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(ImportError, match="TF_USE_LEGACY_KERAS is set, which needs the package tf_keras .*pip install"):
        chosen()


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    other = types.ModuleType("keras")
    other.__version__ = "3.99"
    other.backend = types.SimpleNamespace(backend=lambda: "jax")
    monkeypatch.setitem(sys.modules, "keras", other)
    with pytest.raises(ImportError, match="set to the backend 'jax': set KERAS_BACKEND=tensorflow"):
        chosen()
