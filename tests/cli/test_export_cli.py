"""`psanet export`, as a user calls it."""

import json

import pytest
from typer.testing import CliRunner

from psanet_cli.app import _register, app
from psanet_tf import PSANet
from psanet_tf.data.catalog import dataset_info


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    PSANet(21, blocks=(1, 1, 1, 1), width=4, input_shape=(33, 33, 3), use_psa=False).save(folder / "best.keras")
    (folder / "dataset.json").write_text(json.dumps(dataset_info("voc2012").to_dict()))
    (folder / "config.yaml").write_text(
        "data: {dataset: voc2012, root: nowhere, crop_size: [33, 33]}\n"
        "model: {blocks: [1, 1, 1, 1], width: 4, use_psa: false}\n"
        "evaluate: {base_size: 50, flip: false}\n"
    )
    return folder


def run(*arguments):
    _register()
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_export_of_a_run_says_where_it_is_and_what_to_do_next(run_folder, tmp_path):
    result = run("--weights", run_folder, "--out", tmp_path / "psanet", "--set", "evaluate.base_size=60")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "psanet" / "1" / "saved_model.pb").is_file()
    assert "100.00% of the labels equal" in result.output
    assert f"is in {tmp_path / 'psanet' / '1'}" in result.output
    assert f"psanet serve {tmp_path / 'psanet'}" in result.output
    metadata = json.loads((tmp_path / "psanet" / "1" / "assets" / "metadata.json").read_text())
    assert (metadata["base_size"], metadata["flip"]) == (60, False)


def test_a_lone_file_is_exported_with_numbered_classes_or_those_of_a_configuration(
    run_folder, tmp_path, networkless_exports
):
    lone = tmp_path / "a" / "b" / "model.keras"
    lone.parent.mkdir(parents=True)
    lone.write_bytes((run_folder / "best.keras").read_bytes())
    classes = {}
    for version, options in (("1", ()), ("2", ("--config", run_folder / "config.yaml"))):
        result = run("--weights", lone, "--out", tmp_path / "m", "--no-warm-up", *options)
        assert result.exit_code == 0, result.output
        classes[version] = json.loads((tmp_path / "m" / version / "assets" / "metadata.json").read_text())[
            "class_names"
        ]
        assert ("note: nothing names the classes of" in result.output) == (version == "1")
        assert not (tmp_path / "m" / version / "assets.extra").exists()
    assert classes == {"1": [f"class {index}" for index in range(21)], "2": list(dataset_info("voc2012").class_names)}


def test_a_configuration_without_a_folder_of_data_does(run_folder, tmp_path, networkless_exports):
    lone = tmp_path / "a" / "b" / "model.keras"
    lone.parent.mkdir(parents=True)
    lone.write_bytes((run_folder / "best.keras").read_bytes())
    config = tmp_path / "config.yaml"
    config.write_text("data: {dataset: voc2012, crop_size: [33, 33]}\n")
    result = run("--weights", lone, "--config", config, "--out", tmp_path / "m", "--no-warm-up")
    assert result.exit_code == 0, result.output
    metadata = json.loads((tmp_path / "m" / "1" / "assets" / "metadata.json").read_text())
    assert metadata["class_names"] == list(dataset_info("voc2012").class_names)
    config.write_text("data: {dataset: custom, class_names: names.txt}\n")
    result = run("--weights", lone, "--config", config, "--out", tmp_path / "m", "--no-warm-up")
    assert isinstance(result.exception, (OSError, ValueError))
    assert "it is not set" in str(result.exception)


def test_wrong_weights(tmp_path):
    result = run("--weights", tmp_path / "none", "--out", tmp_path / "m")
    assert isinstance(result.exception, FileNotFoundError)
    (tmp_path / "text.keras").write_text("hello")
    result = run("--weights", tmp_path / "text.keras", "--out", tmp_path / "m")
    assert isinstance(result.exception, ValueError)
    assert not (tmp_path / "m").exists()
