"""`psanet evaluate`, as a user calls it."""

from typer.testing import CliRunner

from psanet_cli.app import _register, app


def run(*arguments):
    _register()
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_scores_and_where_the_files_are(evaluated_runs, tmp_path):
    result = run("--weights", evaluated_runs / "psanet", "--out", tmp_path, "--limit", 3, "--worst", 2)
    assert result.exit_code == 0, result.output
    assert "3 images, percent" in result.output
    assert "mIoU " in result.output
    assert "expected calibration error " in result.output
    assert f"report: {tmp_path / 'report.html'}" in result.output
    for name in ("report.html", "scores.json", "classes.csv", "confusion.png", "worst.png"):
        assert (tmp_path / name).is_file()


def test_multi_scale_takes_the_papers_scales(evaluated_runs, tmp_path):
    arguments = ("--weights", evaluated_runs / "fcn", "--out", tmp_path, "--limit", 1, "--multi-scale")
    assert run(*arguments).exit_code == 0
    assert "0.5, 0.75, 1, 1.25, 1.5, 1.75" in (tmp_path / "report.html").read_text()
    result = run(*arguments[:-1])
    assert isinstance(result.exception, ValueError)
    assert "other settings" in str(result.exception)


def test_failures_are_said_and_end_with_status_1(evaluated_runs, tmp_path):
    import shutil

    shutil.copytree(evaluated_runs / "data", tmp_path / "data")
    (tmp_path / "data" / "images" / "validation" / "image_0.png").write_bytes(b"no image")
    result = run(
        "--weights", evaluated_runs / "fcn", "--out", tmp_path / "out", "--whole", "--set", f"data.root={tmp_path}/data"
    )
    assert result.exit_code == 1
    assert "1 images could not be read" in result.output
    assert "image_0.png is not a readable image" in result.output
    assert "5 images, percent" in result.output
