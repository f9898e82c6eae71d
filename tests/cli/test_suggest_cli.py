"""`psanet suggest`, as a user calls it."""

from PIL import Image
from typer.testing import CliRunner

from psanet_cli.app import _register, app


def run(*arguments):
    _register()
    return CliRunner().invoke(app, ["suggest", *map(str, arguments)])


def test_suggest_writes_a_list_a_page_and_labels(evaluated_runs, tmp_path):
    images = evaluated_runs / "data" / "images" / "validation"
    out = tmp_path / "out"
    arguments = ["--weights", evaluated_runs / "fcn", "--whole", "--out", out, "--count", 2, "--similarity", 1]
    result = run(images, *arguments, "--measure", "entropy", "--balanced")
    assert result.exit_code == 0, result.output
    assert "2 of 6 images suggested, 0 that look like one of them left out" in result.output
    for name in ("suggestions.html", "suggestions.csv", "images", "cvat_masks.zip", "label_studio.json"):
        assert f"{out / name}" in result.output
        assert (out / name).exists()
    assert [Image.open(path).size for path in (out / "images").iterdir()] == [(56, 40)] * 2
    (tmp_path / "clip.mp4").write_bytes(b"")
    result = run(tmp_path / "clip.mp4", *arguments)
    assert "only videos are given" in str(result.exception)
