"""What `train` refuses before it trains."""

import pytest
import tensorflow as tf

from psanet_tf.data.catalog import info_of
from psanet_tf.data.scene_files import write_scenes
from psanet_tf.training import trainer
from psanet_tf.training.continuation import check_data
from psanet_tf.training.run_folder import TrainingFolder, environment
from psanet_tf.training.schedule import Schedule
from psanet_tf.training.strategy import build_strategy, uses_xla
from psanet_tf.training.trainer import train


def test_wrong_folders(config, tmp_path, monkeypatch):
    started, checked = TrainingFolder(tmp_path / "started"), config()
    with started.locked():
        fingerprints = check_data(started, checked, False)
        started.write_facts(checked, info_of(checked.data), environment(["CPU:0"]), Schedule(4, 3), fingerprints)
    with pytest.raises(ValueError, match=r"another configuration \(train.learning_rate was 0.01, is 0.02\)"):
        train(config("train.learning_rate=0.02"), started.path)
    with pytest.raises(ValueError, match=r"a run of 3 epochs, train.epochs is 5; give --extend --epochs 5"):
        train(config("train.epochs=5"), started.path)
    thesis = tmp_path / "documents" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("")
    with pytest.raises(ValueError, match=r"holds thesis.tex but no run"):
        train(config(), thesis.parent)
    with pytest.raises(OSError, match="is a file"):
        train(config(), thesis)
    with pytest.raises(OSError, match="cannot be written"):
        train(config(), thesis / "run")
    with TrainingFolder(tmp_path / "held").locked(), pytest.raises(OSError, match="another process is training"):
        train(config(), tmp_path / "held")
    free = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    with pytest.raises(OSError, match=r"checkpoints and states of this run need about [\d.]+ MB more, 1.0 kB are free"):
        train(config("model.use_psa=false", "train.epochs=1"), tmp_path / "full")
    assert not (tmp_path / "full" / "config.yaml").exists()


def test_wrong_data_and_numbers(config, tmp_path):
    with pytest.raises(ValueError, match=r"train.batch_size: 3 images cannot be shared equally by 2 replicas; 2 can"):
        train(config("train.batch_size=3", "train.cpu_replicas=2"), tmp_path / "a")
    with pytest.raises(ValueError, match=r"18 images, fewer than one batch of 20"):
        train(config("train.batch_size=20"), tmp_path / "b")
    with pytest.raises(ValueError, match=r"train.accumulation_steps: 13 steps per update, but the run has 12"):
        train(config("train.accumulation_steps=13"), tmp_path / "c")
    with pytest.raises(ValueError, match=r"train.class_weights: scenes has \d+ classes, got 2"):
        train(config("train.class_weights=[1, 2]"), tmp_path / "d")
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        train(config("train.init=nothing.pth"), tmp_path / "e")
    with pytest.raises(FileNotFoundError, match="no folder"):
        train(config("data.dataset=ade20k", "data.root=nowhere"), tmp_path / "f")


def test_xla_where_it_cannot_serve(config, two_replicas, monkeypatch):
    xla, auto = config("train.jit_compile=true").train, config().train
    with pytest.raises(ValueError, match=r"train.jit_compile: true: .* of one device only, here are 2 replicas"):
        uses_xla(xla, two_replicas)
    with pytest.raises(ValueError, match=r"no step under a tf.distribute strategy, here is a OneDeviceStrategy"):
        uses_xla(xla, tf.distribute.OneDeviceStrategy("CPU:0"))
    exact = config("train.jit_compile=true", "train.deterministic=true")
    with pytest.raises(ValueError, match=r"where operations must be deterministic \(train.deterministic: true\)"):
        uses_xla(exact.train, build_strategy(exact.train))
    assert uses_xla(xla, build_strategy(xla))
    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"\(tf.config.*enable_op_determinism\)"):
        patch.setattr("psanet_tf.training.strategy.is_op_determinism_enabled", lambda: True)
        uses_xla(xla, build_strategy(xla))
    assert not uses_xla(auto, build_strategy(auto))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [kind])  # one GPU
    assert uses_xla(auto, build_strategy(auto))
    assert not uses_xla(auto, two_replicas)
    assert not uses_xla(config("train.deterministic=true").train, build_strategy(auto))
    assert not uses_xla(config("train.jit_compile=false").train, build_strategy(auto))


def test_missing_scenes_are_written_first(config, tmp_path, monkeypatch):
    written = []

    def write_few(root, kind):
        written.append((root, kind))
        write_scenes(root, train=1, validation=1, kind=kind)

    monkeypatch.setattr(trainer, "write_scenes", write_few)
    trainer.prepare_data(config(f"data.root={tmp_path / 'new'}"))
    trainer.prepare_data(config())
    assert written == [(str(tmp_path / "new"), "scenes")]
