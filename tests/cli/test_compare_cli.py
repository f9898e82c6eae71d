"""`psanet compare`, as a user calls it."""

from typer.testing import CliRunner

from psanet_cli.app import _register, app


def run(*arguments):
    _register()
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_two_runs(evaluated_runs, tmp_path):
    for name in ("fcn", "psanet"):
        out = tmp_path / name / "evaluation"
        result = run("evaluate", "--weights", evaluated_runs / name, "--out", out, "--limit", 2, "--worst", 0)
        assert result.exit_code == 0, result.output
    result = run(
        "compare", tmp_path / "fcn", tmp_path / "psanet", "--name", "FCN", "--name", "PSANet", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert "FCN: mIoU " in result.output
    assert (tmp_path / "out" / "comparison.html").is_file()
    assert (tmp_path / "out" / "comparison.png").is_file()


def test_a_folder_without_an_evaluation(tmp_path):
    result = run("compare", tmp_path, tmp_path, "--out", tmp_path / "out")
    assert isinstance(result.exception, FileNotFoundError)
    assert "run psanet evaluate first" in str(result.exception)
